"""The plain local loop: a few SGD steps on one device's rows.

Losses are summed over a batch, not averaged: an empty batch then moves nothing, and the same loop
serves plain and record-private training, which divides by a public number in the learning rate.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor, nn

from ..hazard_bins import NUM_BINS
from .central import as_batch
from .losses import Batch, row_losses
from .network import HazardNetwork

if TYPE_CHECKING:
    from collections.abc import Iterable

    from numpy.typing import NDArray

    from ..training_rows import TrainingRows

ScaledRows = Batch
"""As a batch, with scaled features in place of raw ones."""


class LayersAfterScaling(nn.Module):
    """The layers of a network that learn, on features that are scaled already.

    Scaling is public and fixed, so a device's rows are scaled once and not in every step.

    Args:
        network: whose layers these are; they are shared, not copied.
    """

    def __init__(self, network: HazardNetwork) -> None:
        super().__init__()
        self.trunk, self.head = network.trunk, network.head

    def forward(self, scaled: Tensor) -> Tensor:
        """Return hazard and cause logits side by side, shape (n, n_bins + n_causes)."""
        logits: Tensor = self.head(self.trunk(scaled))
        return logits


class LocalNetwork:
    """One network and its plain optimiser, kept for device after device.

    Its parameters are views of one flat vector, so that a device's weights go in and out by one
    copy.

    Attributes:
        network: the whole network, from raw features.
        module: its layers that learn; what `local_steps` trains, as it is or wrapped.
        optimizer: plain SGD over them.

    Args:
        learning_rate: of plain SGD, on the sum of a batch's losses.
        proximal: μ of FedProx beside that sum: each step also descends μ/2 · ‖w − w_loaded‖²; 0 is
            without. Wrapped for privacy, the optimiser adds this once rows are clipped and noised.
    """

    def __init__(self, *, learning_rate: float, proximal: float = 0.0) -> None:
        self.network = HazardNetwork()
        self.module = LayersAfterScaling(self.network)
        self._flat = flatten_parameters(self.network)
        self.optimizer = torch.optim.SGD(
            self.module.parameters(), lr=learning_rate, foreach=False, fused=False
        )
        self._proximal = proximal
        self._loaded = [parameter.detach().clone() for parameter in self.module.parameters()]
        if proximal > 0:
            self.optimizer.register_step_pre_hook(self._hold_back)

    @property
    def num_weights(self) -> int:
        """Number of weights."""
        return self._flat.numel()

    def load(self, weights: NDArray[np.float32]) -> None:
        """Take weights, float32, shape (n_weights,), in the order of the module's parameters.

        Raises:
            ValueError: another number of weights.
        """
        if weights.shape != (self.num_weights,):
            raise ValueError(f"weights must have shape ({self.num_weights},), got {weights.shape}")
        with torch.no_grad():
            self._flat.copy_(torch.from_numpy(np.ascontiguousarray(weights, dtype=np.float32)))
            if self._proximal > 0:
                for loaded, parameter in zip(self._loaded, self.module.parameters(), strict=True):
                    loaded.copy_(parameter)

    def _hold_back(self, *_of_the_step: object) -> None:
        with torch.no_grad():
            for loaded, parameter in zip(self._loaded, self.module.parameters(), strict=True):
                if parameter.grad is not None:
                    parameter.grad.add_(parameter - loaded, alpha=self._proximal)

    def scale(self, rows: TrainingRows) -> ScaledRows:
        """Return a device's rows as tensors, features scaled by public ranges."""
        features, exposure, event_bin, cause = as_batch(rows)
        with torch.no_grad():
            return self.network.scaled(features), exposure, event_bin, cause

    def weights(self) -> NDArray[np.float32]:
        """Return a copy of the weights, float32, shape (n_weights,)."""
        values: NDArray[np.float32] = self._flat.detach().numpy().copy()
        return values


def local_steps(
    module: nn.Module,
    optimizer: torch.optim.Optimizer,
    rows: ScaledRows,
    batches: Iterable[NDArray[np.int64]],
) -> None:
    """Take one SGD step a batch on Σ row losses.

    Args:
        module: `LayersAfterScaling`, or one that wraps it and gives the same outputs.
        optimizer: over its parameters.
        rows: of one device.
        batches: int64, shape (batch,) each: which rows; may be empty.
    """
    scaled, exposure, event_bin, cause = rows
    for picked in batches:
        index = torch.from_numpy(picked)
        batch: Batch = (scaled[index], exposure[index], event_bin[index], cause[index])
        optimizer.zero_grad()
        logits = module(batch[0])
        losses = row_losses(logits[:, :NUM_BINS], logits[:, NUM_BINS:], batch)
        losses.sum().backward()  # type: ignore[no-untyped-call]
        optimizer.step()


def new_flat_weights(*, seed: int) -> NDArray[np.float32]:
    """Return random initial weights, float32, shape (n_weights,), the same for the same seed."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        network = HazardNetwork()
    values: NDArray[np.float32] = flatten_parameters(network).detach().numpy().copy()
    return values


def flatten_parameters(module: nn.Module) -> Tensor:
    """Move a module's parameters into one flat vector, of which they become views."""
    parameters = list(module.parameters())
    flat = torch.cat([parameter.detach().flatten() for parameter in parameters])
    start = 0
    for parameter in parameters:
        end = start + parameter.numel()
        parameter.data = flat[start:end].view_as(parameter)
        start = end
    return flat
