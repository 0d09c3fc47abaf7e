"""Private local training on local data: one device's rows in, its clipped update out.

Two ways lead to the same update: the closed form in NumPy, which any device can run, and Opacus in
torch, the reference. A real device and a simulated block call the same function.
"""

from __future__ import annotations

from enum import StrEnum
from itertools import islice
from typing import TYPE_CHECKING, Final, Protocol

import numpy as np

from .closed_form_training import ClosedFormTraining

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from numpy.typing import NDArray

    from models.training_rows import TrainingRows
    from models.wire.rounds import LocalRecipe
    from privacy import NoiseSource
    from privacy.clipping import StepGrid

DEVICES_AT_ONCE: Final = 64
"""Devices of a block that train side by side: more no longer fit the processor's cache."""


class TrainingPath(StrEnum):
    """How row gradients are computed."""

    CLOSED_FORM = "closed_form"
    OPACUS = "opacus"


class LocalTrainer(Protocol):
    """Trains devices by one recipe, kept for device after device."""

    @property
    def num_weights(self) -> int:
        """Number of weights of the network."""

    def change(
        self, rows: TrainingRows, *, weights: NDArray[np.float32], source: NoiseSource
    ) -> NDArray[np.float64]:
        """Train from the round's weights and return how they moved.

        Args:
            rows: of one device; fewer than the recipe's least move nothing.
            weights: of the round, float32, shape (n_weights,).
            source: of the Poisson coins and of the noise on row gradients.

        Returns:
            float64, shape (n_weights,): weights after minus before, not clipped yet.

        Raises:
            ValueError: the weights are those of another network.
        """

    def changes(
        self,
        devices: Sequence[tuple[TrainingRows, NoiseSource]],
        *,
        weights: NDArray[np.float32],
    ) -> NDArray[np.float64]:
        """Train several devices as `change` does each; float64, shape (n_devices, n_weights)."""


def local_trainer(
    recipe: LocalRecipe, *, path: TrainingPath = TrainingPath.CLOSED_FORM
) -> LocalTrainer:
    """Return what trains devices by a recipe.

    Args:
        recipe: how each device trains.
        path: closed form unless the reference is asked for, which needs torch and Opacus.
    """
    if path is TrainingPath.CLOSED_FORM:
        return ClosedFormTraining(recipe)
    from .hooked_training import HookedTraining

    return HookedTraining(recipe)


def train_on_device(
    trainer: LocalTrainer,
    rows: TrainingRows,
    *,
    weights: NDArray[np.float32],
    grid: StepGrid,
    source: NoiseSource,
) -> NDArray[np.int64]:
    """Train on one device and make what leaves it: the update, clipped to C, on the grid.

    Args:
        trainer: prepared for the round's recipe.
        rows: the device's training rows.
        weights: of the round, float32, shape (n_weights,).
        grid: of the step; holds C.
        source: in production the operating system's entropy.

    Returns:
        int64, shape (grid.size(n_weights),), ‖·‖₂ ≤ C on the grid; all zero for a device that sits
        out or whose training did not stay finite, so that neither can be told from an absent one.
    """
    change = trainer.change(rows, weights=weights, source=source)
    return grid.contribution(change)


def train_block(
    trainer: LocalTrainer,
    devices: Iterable[tuple[TrainingRows, NoiseSource]],
    *,
    weights: NDArray[np.float32],
    grid: StepGrid,
) -> NDArray[np.int64]:
    """Train devices, some of them side by side, and add their updates up.

    The sum is exact, whatever the order of the devices and whichever of them trained together.

    Args:
        trainer: prepared for the round's recipe.
        devices: each one's training rows and source of randomness.
        weights: of the round, float32, shape (n_weights,).
        grid: of the step.

    Returns:
        int64, shape (grid.size(n_weights),): Σ of what `train_on_device` gives for each.
    """
    total = np.zeros(grid.size(trainer.num_weights), np.int64)
    waiting = iter(devices)
    while some := list(islice(waiting, DEVICES_AT_ONCE)):
        total += sum_of_clipped(trainer.changes(some, weights=weights), grid=grid)
    return total


def sum_of_clipped(changes: NDArray[np.float64], *, grid: StepGrid) -> NDArray[np.int64]:
    """Clip each device's change to C, put it on the grid, and add them up.

    Args:
        changes: float64, shape (n_devices, n_weights).
        grid: of the step; holds C.

    Returns:
        int64, shape (grid.size(n_weights),).
    """
    total = np.zeros(grid.size(changes.shape[1]), np.int64)
    for change in changes:
        total += grid.contribution(change)
    return total
