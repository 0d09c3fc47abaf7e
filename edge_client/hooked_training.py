"""Local training in torch, row gradients by Opacus' hooks: the reference.

Here the plain loop of `models.training` meets `privacy`: the same loop runs with record-level
DP-SGD around it or without. It needs torch and Opacus, and takes some ten times as long as the
closed form, which is held against it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from models.training.local_epochs import LocalNetwork, local_steps
from privacy.poisson_sampling import poisson_batches

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from models.training_rows import TrainingRows
    from models.wire.rounds import LocalRecipe
    from privacy import NoiseSource


class HookedTraining:
    """A network prepared for one recipe, kept for device after device.

    Args:
        recipe: how each device trains.
    """

    def __init__(self, recipe: LocalRecipe) -> None:
        self.recipe = recipe
        self._network = LocalNetwork(
            learning_rate=recipe.learning_rate / recipe.expected_batch_size,
            proximal=recipe.proximal * recipe.expected_batch_size,
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
        self._network.load(weights)
        if len(rows) < self.recipe.least_rows:
            return np.zeros(self.num_weights)
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

    def changes(
        self,
        devices: Sequence[tuple[TrainingRows, NoiseSource]],
        *,
        weights: NDArray[np.float32],
    ) -> NDArray[np.float64]:
        """Train device after device; float64, shape (n_devices, n_weights)."""
        return np.stack(
            [self.change(rows, weights=weights, source=source) for rows, source in devices]
        )
