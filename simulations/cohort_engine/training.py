"""Local training of blocks of simulated devices in batched products.

It takes the place of `edge_client.closed_form_training` where thousands of devices are trained one
block after the other: the same coins, clipping and noise from the same sources, up to the rounding
of float32 (tests hold each device within 1e-5). A device's bits depend on its own rows, source and
the round's weights alone, neither on the devices beside it nor on how a cohort is cut into blocks;
sums are integers. So a seed repeats whatever the block size and the number of processes.
"""

from __future__ import annotations

from itertools import islice
from typing import TYPE_CHECKING, Final

import numpy as np

from models.closed_form_batches import ScaledRows
from models.network_shape import NUM_WEIGHTS

from .batched_gradients import clipped_gradient_sums
from .block_noise import block_noise
from .bordered_weights import add_flat, bordered, flattened
from .padded_rows import PaddedRows

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from numpy.typing import NDArray

    from models.training_rows import TrainingRows
    from models.wire.rounds import LocalRecipe
    from privacy import NoiseSource
    from privacy.clipping import StepGrid

DEVICES_A_BLOCK: Final = 256
"""Devices that are held in memory and take a step together; changes no bit."""
DEVICES_A_PRODUCT: Final = 32
"""Devices in one batched product: what they need stays in a core's cache; changes no bit."""


class CohortTraining:
    """Training by one recipe; a `LocalTrainer` that holds no state between devices.

    Args:
        recipe: how each device trains.
        devices_a_block: that take a step together.
    """

    def __init__(self, recipe: LocalRecipe, *, devices_a_block: int = DEVICES_A_BLOCK) -> None:
        if devices_a_block < 1:
            raise ValueError(f"devices_a_block must be at least 1, got {devices_a_block}")
        self.recipe = recipe
        self.devices_a_block = devices_a_block
        self._rate = np.float32(recipe.learning_rate / recipe.expected_batch_size)
        self._kept = np.float32(1.0 - recipe.learning_rate * recipe.proximal)
        self._std = np.float32(recipe.record_noise_multiplier * recipe.record_max_grad_norm)
        self._bound = recipe.record_max_grad_norm if recipe.is_record_private else None

    @property
    def num_weights(self) -> int:
        """Number of weights of the network."""
        return NUM_WEIGHTS

    def change(
        self, rows: TrainingRows, *, weights: NDArray[np.float32], source: NoiseSource
    ) -> NDArray[np.float64]:
        """Train one device; float64, shape (n_weights,), not clipped yet."""
        moved: NDArray[np.float64] = self.changes([(rows, source)], weights=weights)[0]
        return moved

    def changes(
        self,
        devices: Sequence[tuple[TrainingRows, NoiseSource]],
        *,
        weights: NDArray[np.float32],
    ) -> NDArray[np.float64]:
        """Train several devices, each as alone, to the last bit.

        Args:
            devices: each one's training rows and source of randomness; with fewer rows than the
                recipe's least a device moves nothing.
            weights: of the round, float32, shape (n_weights,).

        Returns:
            float64, shape (n_devices, n_weights): weights after minus before, not clipped yet.

        Raises:
            ValueError: the weights are those of another network.
        """
        moved = np.zeros((len(devices), NUM_WEIGHTS))
        for start in range(0, len(devices), self.devices_a_block):
            some = devices[start : start + self.devices_a_block]
            tables = [(ScaledRows.of(rows), source) for rows, source in some]
            moved[start : start + len(some)] = self._changes_of_block(tables, weights=weights)
        return moved

    def contributions(
        self,
        devices: Iterable[tuple[ScaledRows, NoiseSource]],
        *,
        weights: NDArray[np.float32],
        grid: StepGrid,
    ) -> NDArray[np.int64]:
        """Train devices whose rows are scaled, clip each change, and add them up on the grid.

        No more than a block of devices is held at a time.

        Args:
            devices: each one's rows, float32, and source of randomness.
            weights: of the round, float32, shape (n_weights,).
            grid: of the step.

        Returns:
            int64, shape (grid.size(n_weights),): Σ of what each device would send.

        Raises:
            ValueError: the weights are those of another network.
        """
        total = np.zeros(grid.size(NUM_WEIGHTS), np.int64)
        waiting = iter(devices)
        while some := list(islice(waiting, self.devices_a_block)):
            for change in self._changes_of_block(some, weights=weights):
                total += grid.contribution(change)
        return total

    def _changes_of_block(
        self,
        devices: Sequence[tuple[ScaledRows, NoiseSource]],
        *,
        weights: NDArray[np.float32],
    ) -> NDArray[np.float32]:
        """Return how each device's weights moved, float32, shape (n_devices, n_weights)."""
        if weights.shape != (NUM_WEIGHTS,):
            raise ValueError(f"weights must have shape ({NUM_WEIGHTS},), got {weights.shape}")
        moved = np.zeros((len(devices), NUM_WEIGHTS), np.float32)
        training = [
            number
            for number, (rows, _) in enumerate(devices)
            if len(rows) >= self.recipe.least_rows
        ]
        if training:
            trained = self._trained(
                PaddedRows.of([devices[number][0] for number in training]),
                [devices[number][1] for number in training],
                start=bordered(weights.astype(np.float32, copy=False)),
            )
            moved[training] = flattened(trained)
        return moved

    def _trained(
        self, rows: PaddedRows, sources: Sequence[NoiseSource], *, start: NDArray[np.float32]
    ) -> NDArray[np.float32]:
        """Take the recipe's steps; return the change, bordered."""
        recipe = self.recipe
        noise = block_noise(sources, rows.counts.tolist(), steps=recipe.steps)
        moved = np.zeros((rows.num_devices, NUM_WEIGHTS), np.float32)
        # What is not finite is made zero, row by row or device by device; no warning on the way.
        with np.errstate(all="ignore"):
            for step in range(recipe.steps):
                is_taken = noise.coins() < recipe.sampling_rate
                drawn = None if self._bound is None else noise.gaussians(NUM_WEIGHTS)
                for batch in rows.batches(is_taken, most=DEVICES_A_PRODUCT):
                    before = moved.take(batch.devices, axis=0)
                    current = start + before if step else start[None]
                    sums = clipped_gradient_sums(
                        current, rows, batch.picked, max_grad_norm=self._bound
                    )
                    if drawn is not None:
                        of_batch = drawn.take(batch.devices, axis=0)
                        of_batch *= self._std
                        add_flat(sums, of_batch)
                    sums *= self._rate
                    if self._kept != 1:
                        # After the noise: it is made of weights alone, and moves no row's norm.
                        before *= self._kept
                    before -= sums
                    moved[batch.devices] = before
        return moved
