"""Private local epochs on local data: one device's rows in, its clipped update out.

Here the plain loop of `models.training` meets `privacy`: the same loop runs with record-level
DP-SGD around it or without. A real device and a simulated block call the same function.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from models.training.local_epochs import LocalNetwork, local_steps
from privacy import clip_update
from privacy.poisson_sampling import poisson_batches

if TYPE_CHECKING:
    from collections.abc import Iterable

    from numpy.typing import NDArray

    from models.training_rows import TrainingRows
    from models.wire.rounds import LocalRecipe
    from privacy import NoiseSource, UpdateGrid


class LocalTrainer:
    """A network prepared for one recipe, kept for device after device.

    Args:
        recipe: how each device trains.
    """

    def __init__(self, recipe: LocalRecipe) -> None:
        self.recipe = recipe
        self._network = LocalNetwork(
            learning_rate=recipe.learning_rate / recipe.expected_batch_size
        )
        self._private = None
        if recipe.is_record_private:
            from privacy.dp_sgd import make_private

            self._private = make_private(
                self._network.module,
                self._network.optimizer,
                noise_multiplier=recipe.record_noise_multiplier,
                max_grad_norm=recipe.record_max_grad_norm,
            )

    @property
    def num_weights(self) -> int:
        """Number of weights of the network."""
        return self._network.num_weights

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
        """
        if len(rows) < self.recipe.least_rows:
            return np.zeros(self.num_weights)
        self._network.load(weights)
        batches = poisson_batches(
            len(rows),
            sampling_rate=self.recipe.sampling_rate,
            steps=self.recipe.steps,
            source=source,
        )
        scaled = self._network.scale(rows)
        if self._private is None:
            local_steps(self._network.module, self._network.optimizer, scaled, batches)
        else:
            self._private.draw_from(source)
            local_steps(self._private.module, self._private.optimizer, scaled, batches)
        return self._network.weights().astype(np.float64) - weights


def train_on_device(
    trainer: LocalTrainer,
    rows: TrainingRows,
    *,
    weights: NDArray[np.float32],
    grid: UpdateGrid,
    source: NoiseSource,
) -> NDArray[np.int64]:
    """Train on one device and make what leaves it: the update, clipped to C, on the grid.

    Args:
        trainer: prepared for the round's recipe.
        rows: the device's training rows.
        weights: of the round, float32, shape (n_weights,).
        grid: of the stream; holds C.
        source: in production the operating system's entropy.

    Returns:
        int64, shape (n_weights,), ‖·‖₂ ≤ C on the grid; all zero for a device that sits out or
        whose training did not stay finite, so that neither can be told from an absent one.
    """
    change = trainer.change(rows, weights=weights, source=source)
    return grid.quantise(clip_update(change, clipping_norm=grid.clipping_norm))


def train_block(
    trainer: LocalTrainer,
    devices: Iterable[tuple[TrainingRows, NoiseSource]],
    *,
    weights: NDArray[np.float32],
    grid: UpdateGrid,
) -> NDArray[np.int64]:
    """Train device after device and add their updates up; exact, whatever their order.

    Args:
        trainer: prepared for the round's recipe.
        devices: each one's training rows and source of randomness.
        weights: of the round, float32, shape (n_weights,).
        grid: of the stream.

    Returns:
        int64, shape (n_weights,): Σ of what `train_on_device` gives for each.
    """
    total = np.zeros(trainer.num_weights, np.int64)
    for rows, source in devices:
        total += train_on_device(trainer, rows, weights=weights, grid=grid, source=source)
    return total
