"""What correlated noise gains under the server optimiser that a run uses: measured, not quoted.

The gain in prefix sums holds for a constant rate on plain averaging. Momentum, a falling rate and
Adam's scaling change it, so each optimiser is driven here as it runs: the noise of the run's own
policy, once with its bands and once with one band, goes with a constant signal through the real
`optimizer_step` over the run's rounds and rates, and the ends are compared.

FedAvg and FedAvgM are linear, so the error is the way from the same steps without noise, and no
signal matters. FedAdam scales by what it sees, noise included; there the ratio of signal to noise
at the end is compared, and it depends on the signal: the stronger it is beside the noise of one
step, the less is gained, down to a loss. So the signal that was assumed stands beside the figure.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from privacy.streams import CorrelatedNoise, new_stream_key

from .server_optimizer import OptimizerState, optimizer_step

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from privacy import StreamPolicy

    from .server_optimizer import ServerRecipe

AGREEMENT: Final = 0.25
"""Length of the mean update over C that is assumed: devices agree to a quarter."""
_NORMALS: Final = 200_000
_DIMENSIONS: Final = (256, 1024)
"""Least and greatest number of weights in a measurement, whose spread is about 1/√(2·weights): the
noise is drawn anew each time, from the operating system's entropy as everywhere."""


@dataclass(frozen=True, slots=True, kw_only=True)
class OptimizerGain:
    """The measured gain of correlated noise over independent noise at the same cost in privacy.

    Attributes:
        optimizer: which.
        num_rounds: T.
        bands: p of the policy's noise.
        at_end: how many times smaller the error of the last weights is; for FedAdam how many times
            larger their ratio of signal to noise.
        over_run: the same of the root mean square error over all rounds; None for FedAdam.
        correlated_snr: signal to noise at the end with the policy's noise; None but for FedAdam.
        independent_snr: with independent noise; None but for FedAdam.
        step_snr: assumed signal in one step over independent noise, in each weight.
    """

    optimizer: str
    num_rounds: int
    bands: int
    at_end: float
    over_run: float | None
    correlated_snr: float | None
    independent_snr: float | None
    step_snr: float

    def to_json(self) -> dict[str, Any]:
        """Return the gain as it stands in `run.json`, with what was assumed."""
        rounded = {
            name: value if value is None or isinstance(value, str | int) else round(value, 4)
            for name in self.__dataclass_fields__
            for value in (getattr(self, name),)
        }
        return {**rounded, "assumes": self.assumption}

    @property
    def assumption(self) -> str:
        """What the figure rests on."""
        if self.bands == 1:
            return "nothing: independent noise is what it is compared with"
        if self.correlated_snr is None:
            return "none of the signal: the optimiser is linear"
        return f"each round's mean update is constant, {self.step_snr:.2g} of one step's noise"

    def to_line(self) -> str:
        """Say optimiser and gain in one line."""
        return f"{self.optimizer}: {self.to_words()}"

    def to_words(self) -> str:
        """Say the gain."""
        if self.bands == 1:
            return "none, for the noise is independent in effect (one band)"
        if self.correlated_snr is not None and self.independent_snr is not None:
            return (
                f"{self.at_end:.2f}×, signal to noise at the end {self.correlated_snr:.1f} against "
                f"{self.independent_snr:.1f}; assumes that {self.assumption}"
            )
        return (
            f"error {self.at_end:.2f}× smaller at the end, {self.over_run or 1.0:.2f}× over the run"
        )


def measure_gain(
    policy: StreamPolicy,
    recipe: ServerRecipe,
    *,
    num_weights: int,
    agreement: float = AGREEMENT,
) -> OptimizerGain:
    """Measure what correlated noise gains under an optimiser, over a policy's rounds.

    Args:
        policy: of the stream; its T, n, σ, C, p.
        recipe: of the server optimiser, with its rates.
        num_weights: P of the model, for the signal in each weight.
        agreement: length of the mean update over C, in (0, 1].

    Returns:
        The gain; 1 where the noise has one band.
    """
    privacy = policy.privacy
    step_snr = agreement * policy.cohort_size / (privacy.noise_multiplier * num_weights**0.5)
    is_linear = recipe.optimizer != "fedadam"
    nothing = OptimizerGain(
        optimizer=recipe.optimizer,
        num_rounds=policy.num_rounds,
        bands=privacy.bands,
        at_end=1.0,
        over_run=1.0 if is_linear else None,
        correlated_snr=None,
        independent_snr=None,
        step_snr=step_snr,
    )
    if privacy.bands == 1:
        return nothing
    signal = step_snr * privacy.noise_multiplier * privacy.clipping_norm / policy.cohort_size
    size = int(np.clip(_NORMALS // policy.num_rounds, *_DIMENSIONS))
    alone = replace(policy, privacy=replace(privacy, bands=1))
    key = new_stream_key()
    correlated, independent = (
        _path(one, recipe, key=key, size=size, signal=signal) for one in (policy, alone)
    )
    if not is_linear:
        ours, without = _snr(correlated[-1]), _snr(independent[-1])
        return replace(nothing, at_end=ours / without, correlated_snr=ours, independent_snr=without)
    rounds = policy.num_rounds
    clean = _path(None, recipe, key=key, size=1, signal=signal, num_rounds=rounds)
    return replace(
        nothing,
        at_end=_length(independent[-1] - clean[-1]) / _length(correlated[-1] - clean[-1]),
        over_run=_length(independent - clean) / _length(correlated - clean),
    )


def _path(
    policy: StreamPolicy | None,
    recipe: ServerRecipe,
    *,
    key: bytes,
    size: int,
    signal: float,
    num_rounds: int = 0,
) -> NDArray[np.float64]:
    """Return the weights after each round, float64, shape (T, size); None drives without noise."""
    rounds = num_rounds if policy is None else policy.num_rounds
    noise = None if policy is None else CorrelatedNoise(key, policy)
    state = OptimizerState.start(np.zeros(size))
    path = np.empty((rounds, size))
    for index in range(rounds):
        update = np.full(size, signal)
        if noise is not None and policy is not None:
            # Where the norm adapts, the last value is the noise of bits, and none of a weight.
            update += noise.noise(index, size + 1)[:size] / policy.cohort_size
        rate = recipe.rate_at(index, num_rounds=rounds)
        state = optimizer_step(state, update, recipe=recipe, rate=rate)
        path[index] = state.weights
    return path


def _snr(weights: NDArray[np.float64]) -> float:
    """Mean way of the weights over its spread: every weight has the same signal."""
    return float(abs(weights.mean()) / weights.std())


def _length(error: NDArray[np.float64]) -> float:
    """Root mean square of an error."""
    return float(np.sqrt(np.mean(np.square(error))))
