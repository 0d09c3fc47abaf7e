"""Central, non-private training of the network: the peer of the federated one, and the recipe's."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch

from .losses import Batch, row_losses
from .network import HazardNetwork

if TYPE_CHECKING:
    from collections.abc import Callable

    from ..training_rows import TrainingRows


def as_batch(rows: TrainingRows) -> Batch:
    """Return training rows as tensors."""
    return (
        torch.from_numpy(np.ascontiguousarray(rows.features)),
        torch.from_numpy(np.ascontiguousarray(rows.exposure)),
        torch.from_numpy(rows.event_bin.astype(np.int64)),
        torch.from_numpy(rows.cause.astype(np.int64)),
    )


def train_centrally(
    rows: TrainingRows,
    *,
    seed: int,
    num_steps: int = 3000,
    batch_size: int = 2048,
    learning_rate: float = 5e-3,
    weight_decay: float = 1e-4,
    input_jitter: float = 0.0,
    network: HazardNetwork | None = None,
    on_step: Callable[[int], None] | None = None,
) -> HazardNetwork:
    """Train on all rows at once with AdamW and a one-cycle learning rate.

    Args:
        rows: what to learn from.
        seed: of initialisation and batches.
        num_steps: optimiser steps.
        batch_size: rows a step, drawn with replacement.
        learning_rate: peak.
        weight_decay: decoupled.
        input_jitter: standard deviation of noise on the scaled values: smoother functions, which
            hold further outside the training sets.
        network: to go on from; None starts from random weights.
        on_step: called with each step's number, for progress.
    """
    generator = torch.Generator().manual_seed(seed)
    if network is None:
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            network = HazardNetwork()
    tensors = as_batch(rows)
    optimiser = torch.optim.AdamW(network.parameters(), lr=learning_rate, weight_decay=weight_decay)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, learning_rate, num_steps)
    for step in range(num_steps):
        picked = torch.randint(len(rows), (batch_size,), generator=generator)
        batch = (tensors[0][picked], tensors[1][picked], tensors[2][picked], tensors[3][picked])
        optimiser.zero_grad()
        scaled = network.scaled(batch[0])
        if input_jitter > 0:
            noise = torch.randn(scaled.shape, generator=generator)
            scaled = scaled + input_jitter * noise * _is_value(network)
        loss = row_losses(*network.from_scaled(scaled), batch).mean()
        loss.backward()  # type: ignore[no-untyped-call]
        optimiser.step()
        schedule.step()
        if on_step is not None:
            on_step(step)
    return network


def _is_value(network: HazardNetwork) -> torch.Tensor:
    """Return 1 for the scaled values the network sees and 0 for missing flags."""
    return torch.cat([network.seen, torch.zeros_like(network.seen)])
