"""Server optimisers: how a released mean update moves the weights.

Reddi et al. 2021, "Adaptive federated optimization", algorithm 2 (FedAdam, with the update as
pseudo-gradient) and Hsu, Qi, Brown 2019 (FedAvgM). All of them see the released update only, so
they spend no privacy: post-processing.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal, get_args

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

OptimizerName = Literal["fedavg", "fedavgm", "fedadam"]
OPTIMIZER_NAMES: tuple[OptimizerName, ...] = get_args(OptimizerName)
_FIRST_RATE = 0.04
WARM_RATE = 0.01
"""FedAdam's learning rate for rounds that start from a trained model."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerRecipe:
    """Which server optimiser runs, with what rate.

    From trained weights `WARM_RATE` keeps what they know: Adam's first steps move every coordinate
    by the whole rate.

    Attributes:
        optimizer: fedavg, fedavgm or fedadam.
        learning_rate: on the mean update (fedavg, fedavgm) or of Adam's unit step (fedadam).
        momentum: β of FedAvgM, β₁ of FedAdam.
        second_momentum: β₂ of FedAdam.
        tau: FedAdam's floor under the root of the second moment, in the update's unit.
        final_rate: share of `learning_rate` left at the last round; it falls by a half cosine.
        warm_up: share of the rounds in which the rate first rises from 4 % by a half cosine, as in
            the one-cycle policy (Smith and Topin 2019).
    """

    optimizer: OptimizerName = "fedadam"
    learning_rate: float = 0.06
    momentum: float = 0.9
    second_momentum: float = 0.999
    tau: float = 1e-6
    final_rate: float = 0.05
    warm_up: float = 0.0

    def __post_init__(self) -> None:
        """Refuse a recipe that cannot be run."""
        if self.optimizer not in OPTIMIZER_NAMES:
            raise ValueError(
                f"optimizer must be one of {', '.join(OPTIMIZER_NAMES)}, got {self.optimizer!r}"
            )
        for name in ("learning_rate", "tau"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name} must be greater than 0, got {getattr(self, name)}")
        for name in ("momentum", "second_momentum"):
            if not 0 <= getattr(self, name) < 1:
                raise ValueError(f"{name} must lie in [0, 1), got {getattr(self, name)}")
        if not 0 < self.final_rate <= 1:
            raise ValueError(f"final_rate must lie in (0, 1], got {self.final_rate}")
        if not 0 <= self.warm_up < 1:
            raise ValueError(f"warm_up must lie in [0, 1), got {self.warm_up}")

    def rate_at(self, index: int, *, num_rounds: int) -> float:
        """Learning rate of step `index`: up to `learning_rate`, then to `final_rate` of it."""
        rising = int(self.warm_up * num_rounds)
        if index < rising:
            start, progress = _FIRST_RATE, 1 - index / rising
        else:
            start, progress = self.final_rate, (index - rising) / max(num_rounds - 1 - rising, 1)
        height = (1 + np.cos(np.pi * progress)) / 2
        return float(self.learning_rate * (start + (1 - start) * height))


@dataclass(frozen=True, slots=True)
class OptimizerState:
    """Weights and moments after some steps.

    Attributes:
        weights: float64, shape (n_weights,).
        first_moment: float64, shape (n_weights,).
        second_moment: float64, shape (n_weights,).
        steps: number of steps taken.
    """

    weights: NDArray[np.float64]
    first_moment: NDArray[np.float64]
    second_moment: NDArray[np.float64]
    steps: int = 0

    @staticmethod
    def start(weights: NDArray[np.floating]) -> OptimizerState:
        """Start from weights, with empty moments."""
        values = weights.astype(np.float64)
        return OptimizerState(values, np.zeros_like(values), np.zeros_like(values))

    def to_arrays(self) -> dict[str, NDArray[np.generic]]:
        """Return the state as named arrays for a checkpoint."""
        return {
            "weights": self.weights,
            "first_moment": self.first_moment,
            "second_moment": self.second_moment,
            "steps": np.array(self.steps, np.int64),
        }

    @staticmethod
    def from_arrays(arrays: Mapping[str, NDArray[np.generic]]) -> OptimizerState:
        """Read the state back from named arrays."""
        return OptimizerState(
            weights=arrays["weights"].astype(np.float64),
            first_moment=arrays["first_moment"].astype(np.float64),
            second_moment=arrays["second_moment"].astype(np.float64),
            steps=int(arrays["steps"].item()),
        )


def optimizer_step(
    state: OptimizerState, update: NDArray[np.float64], *, recipe: ServerRecipe, rate: float
) -> OptimizerState:
    """Move the weights by one released update.

    Args:
        state: before the step.
        update: released mean update, float64, shape (n_weights,).
        recipe: which optimiser.
        rate: learning rate of this step.

    Returns:
        The state after it; the one before is untouched.
    """
    steps = state.steps + 1
    if recipe.optimizer == "fedavg":
        return replace(state, weights=state.weights + rate * update, steps=steps)
    if recipe.optimizer == "fedavgm":
        moment = recipe.momentum * state.first_moment + update
        return replace(
            state, weights=state.weights + rate * moment, first_moment=moment, steps=steps
        )
    first = recipe.momentum * state.first_moment + (1 - recipe.momentum) * update
    second = recipe.second_momentum * state.second_moment + (1 - recipe.second_momentum) * update**2
    unbiased_first = first / (1 - recipe.momentum**steps)
    unbiased_second = second / (1 - recipe.second_momentum**steps)
    move = unbiased_first / (np.sqrt(unbiased_second) + recipe.tau)
    return OptimizerState(state.weights + rate * move, first, second, steps)
