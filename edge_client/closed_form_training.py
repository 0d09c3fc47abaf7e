"""Local training in closed form: DP-SGD in NumPy, for one device or many side by side.

The same coins, the same clipping and the same noise as with Opacus (`edge_client.hooked_training`),
drawn in the same order from the same source, so that both give one update up to the rounding of
float32. It needs neither torch nor Opacus, and is what runs unless the reference is asked for.
"""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np

from models.closed_form import clipped_sums
from models.closed_form_batches import RaggedBatch, ScaledRows
from models.network_shape import NUM_WEIGHTS
from privacy.poisson_sampling import poisson_batches

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from models.training_rows import TrainingRows
    from models.wire.rounds import LocalRecipe
    from privacy import NoiseSource


class ClosedFormTraining:
    """Training by one recipe; holds no state between devices.

    Args:
        recipe: how each device trains.
    """

    def __init__(self, recipe: LocalRecipe) -> None:
        self.recipe = recipe
        self._rate = recipe.learning_rate / recipe.expected_batch_size
        # Of how far a device has moved, FedProx takes this part back in each step.
        self._held_back = recipe.learning_rate * recipe.proximal
        self._bound = recipe.record_max_grad_norm if recipe.is_record_private else None

    @property
    def num_weights(self) -> int:
        """Number of weights of the network."""
        return NUM_WEIGHTS

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
        moved: NDArray[np.float64] = self.changes([(rows, source)], weights=weights)[0]
        return moved

    def changes(
        self,
        devices: Sequence[tuple[TrainingRows, NoiseSource]],
        *,
        weights: NDArray[np.float32],
    ) -> NDArray[np.float64]:
        """Train several devices side by side, each as `change` would, to the last bit.

        Args:
            devices: each one's training rows and source of randomness.
            weights: of the round, float32, shape (n_weights,).

        Returns:
            float64, shape (n_devices, n_weights).

        Raises:
            ValueError: the weights are those of another network.
        """
        _require_weights(weights)
        moved = np.zeros((len(devices), NUM_WEIGHTS))
        training = [
            device
            for device, (rows, _) in enumerate(devices)
            if len(rows) >= self.recipe.least_rows
        ]
        if training:
            tables = [ScaledRows.of(devices[device][0]) for device in training]
            starts = np.cumsum([0, *(len(table) for table in tables)]).tolist()
            moved[training] = self.changes_of_scaled(
                ScaledRows.stacked(tables),
                list(pairwise(starts)),
                [devices[device][1] for device in training],
                weights=weights,
            )
        return moved

    def changes_of_scaled(
        self,
        rows: ScaledRows,
        spans: Sequence[tuple[int, int]],
        sources: Sequence[NoiseSource],
        *,
        weights: NDArray[np.float32],
    ) -> NDArray[np.float64]:
        """Train devices whose rows are scaled already.

        Args:
            rows: of these devices and perhaps others.
            spans: where each device's rows begin and end; the recipe's least or more.
            sources: of each device's coins and noise.
            weights: of the round, float32, shape (n_weights,).

        Returns:
            float64, shape (n_devices, n_weights): as `changes`.
        """
        coins = [
            poisson_batches(
                stop - start,
                sampling_rate=self.recipe.sampling_rate,
                steps=self.recipe.steps,
                source=source,
            )
            for (start, stop), source in zip(spans, sources, strict=True)
        ]
        moved = np.zeros((len(sources), NUM_WEIGHTS))
        current = weights[None]
        for step in range(self.recipe.steps):
            if step > 0:
                current = (weights + moved).astype(np.float32)
            picks = [start + next(coin) for (start, _), coin in zip(spans, coins, strict=True)]
            batch = RaggedBatch.picked(rows, picks)
            sums = clipped_sums(current, batch, max_grad_norm=self._bound)
            if self._bound is not None:
                self._add_noise(sums, sources)
            if self._held_back:
                # After the noise: it is made of weights alone, and moves no row's norm.
                moved *= 1.0 - self._held_back
            moved -= self._rate * sums
        return moved

    def _add_noise(self, sums: NDArray[np.float64], sources: Sequence[NoiseSource]) -> None:
        std = self.recipe.record_noise_multiplier * self.recipe.record_max_grad_norm
        for device, source in enumerate(sources):
            sums[device] += source.gaussian(NUM_WEIGHTS, std=std)


def _require_weights(weights: NDArray[np.float32]) -> None:
    if weights.shape != (NUM_WEIGHTS,):
        raise ValueError(f"weights must have shape ({NUM_WEIGHTS},), got {weights.shape}")
