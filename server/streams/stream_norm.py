"""The clipping norm of a stream's step at hand, and what its released bits make of it.

Where the norm adapts, a sum holds Σ g/C_t and, last, the sum of bits. Noise meets both as they are;
C_t is applied to what was released. C_{t+1} is made of released bits alone, and kept with the
weights in one file, so that no crash leaves the one without the other.

A step of noise alone leaves the norm as it was: no device said anything, and a bit of 0 from each
would pull the norm toward γ = ½. That the step is noise alone is public.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from privacy.adaptive_clipping import next_clipping_norm

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from privacy.adaptive_clipping import AdaptiveClipping

    from .stream_terms import StreamTerms


@dataclass(slots=True)
class StepNorm:
    """The clipping norm of a stream.

    Attributes:
        clipping: how it moves; None for a fixed one.
        current: C of the step at hand; tasks tell it.
        before: C of the last step that was kept, where the norm adapts.
    """

    clipping: AdaptiveClipping | None
    current: float
    before: float | None = None
    _coming: float = field(init=False)

    def __post_init__(self) -> None:
        """Stay where it is until bits are released."""
        self._coming = self.current

    @staticmethod
    def of(terms: StreamTerms, kept: float | None = None) -> StepNorm:
        """Return the norm of a stream that begins, or goes on with what its checkpoint kept."""
        return StepNorm(terms.adaptive, terms.first_norm if kept is None else kept)

    def of_update(self, mean: NDArray[np.float64], *, noise_only: bool) -> NDArray[np.float64]:
        """Return the mean update of a released mean, and see what its bits say.

        Args:
            mean: (Σ u + noise) / n, with that of the bits last where the norm adapts.
            noise_only: whether the step's sum is that of no device.

        Returns:
            float64, shape (n_weights,).
        """
        if self.clipping is None:
            return mean
        if not noise_only:
            self._coming = next_clipping_norm(
                self.clipping, clipping_norm=self.current, mean_bit=float(mean[-1])
            )
        return mean[:-1] * self.current

    def in_unit(self, update: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return a mean update in the unit of the step's sum, as its noise was drawn for it."""
        return update if self.clipping is None else update / self.current

    @property
    def to_keep(self) -> float | None:
        """C of the step that comes, once this one's bits are released; None for a fixed norm."""
        return None if self.clipping is None else self._coming

    def move(self) -> None:
        """Go on to the next step, now that it is kept."""
        if self.clipping is not None:
            self.before, self.current = self.current, self._coming
