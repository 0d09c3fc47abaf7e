"""The devices behind one virtual node, trained together by the cohort engine.

A node that trains block after block asks `SimulatedBlock` for each device's rows and randomness. A
`CohortBlock` takes the whole task instead, as a gateway does, and answers with the same sum, up to
the rounding of float32 in each device's update. It is what `run_planned(…, block_of=CohortBlock)`
puts behind every node.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

from models.closed_form_batches import ScaledRows
from privacy import OperatingSystemNoise
from privacy.adaptive_clipping import grid_of

from ..seeded_noise import SeededNoise
from .fast_noise import FastSeededNoise
from .training import CohortTraining

if TYPE_CHECKING:
    from collections.abc import Iterator

    import numpy as np
    from numpy.typing import NDArray

    from models.training_rows import TrainingRows
    from models.wire.rounds import LocalRecipe, RoundTask
    from privacy import NoiseSource

    from ..training_row_files import RowFiles


@dataclass(frozen=True, slots=True)
class CohortBlock:
    """The devices behind one virtual node.

    Attributes:
        files: rows of the whole fleet.
        block: number of the node.
        seed: of the devices' randomness; None draws from the operating system's entropy.
        has_fast_noise: whether seeded numbers are `FastSeededNoise`; without, each device draws
            what it draws alone with `SeededNoise`.
    """

    files: RowFiles
    block: int
    seed: int | None
    has_fast_noise: bool = False

    @property
    def device_ids(self) -> tuple[str, ...]:
        """Stable identifiers of the devices."""
        return self.files.device_ids(self.block)

    def rows(self, device_id: str) -> TrainingRows:
        """Training rows of one device."""
        return self.files.rows(device_id)

    def source(self, device_id: str, *, stream: str, index: int) -> NoiseSource:
        """Randomness of one device's training in one step."""
        if self.seed is None:
            return OperatingSystemNoise()
        kind = FastSeededNoise if self.has_fast_noise else SeededNoise
        return kind(self.seed, "device", stream, device_id, index)

    def relay_task(
        self,
        task: RoundTask,
        weights: NDArray[np.float32],
        *,
        waited_s: float,  # noqa: ARG002 - the protocol's; a simulated device is never late
    ) -> tuple[NDArray[np.int64], int, tuple[str, ...]]:
        """Return the sum of the invited devices' updates, their number, and no receipts.

        Args:
            task: as the server sent it.
            weights: of the round.
            waited_s: not looked at.
        """
        total = _training(task.recipe).contributions(
            self._invited(task),
            weights=weights,
            grid=grid_of(task.clipping_norm, has_norm_bit=task.has_norm_bit),
        )
        return total, len(task.device_ids), ()

    def _invited(self, task: RoundTask) -> Iterator[tuple[ScaledRows, NoiseSource]]:
        for device_id in task.device_ids:
            rows = ScaledRows.of(self.rows(device_id))
            yield rows, self.source(device_id, stream=task.stream, index=task.index)


@lru_cache(maxsize=2)
def _training(recipe: LocalRecipe) -> CohortTraining:
    return CohortTraining(recipe)
