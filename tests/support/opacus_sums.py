"""What Opacus' hooks make of rows: the clipped sums that the closed form is held against."""

import numpy as np
import torch
from opacus import GradSampleModule
from opacus.optimizers import DPOptimizer

from models.hazard_bins import NUM_BINS
from models.training.central import as_batch
from models.training.local_epochs import LayersAfterScaling
from models.training.losses import row_losses
from models.training.network import HazardNetwork
from privacy.dp_sgd import make_private


class NoNoise:
    """A source whose Gaussians are zero, to look at the sums alone."""

    is_simulated = True

    def gaussian(self, size, *, std):
        return np.zeros(size)


def prepared_layers(weights, rows):
    """Layers after scaling with the weights, and the batch with scaled features, in their type."""
    network = HazardNetwork()
    dtype = torch.from_numpy(weights).dtype
    network.to(dtype)
    torch.nn.utils.vector_to_parameters(torch.from_numpy(weights), network.parameters())
    features, exposure, event_bin, cause = as_batch(rows)
    scaled = network.scaled(features.to(dtype))
    return LayersAfterScaling(network), (scaled, exposure.to(dtype), event_bin, cause)


def opacus_clipped_sum(weights, rows, *, max_grad_norm):
    """Opacus as it comes: its module, its hooks, its optimiser's clipping; no class of ours."""
    layers, batch = prepared_layers(weights, rows)
    module = GradSampleModule(layers, loss_reduction="sum", strict=False)
    optimizer = DPOptimizer(
        torch.optim.SGD(module.parameters(), lr=1.0),
        noise_multiplier=0.0,
        max_grad_norm=max_grad_norm,
        expected_batch_size=None,
        loss_reduction="sum",
    )
    _backward(module, batch)
    optimizer.clip_and_accumulate()
    return _flat([parameter.summed_grad for parameter in layers.parameters()])


def our_opacus_clipped_sum(weights, rows, *, max_grad_norm):
    """The reference path's sum: Opacus with rows that are not finite worth zero."""
    layers, batch = prepared_layers(weights, rows)
    pair = make_private(
        layers,
        torch.optim.SGD(layers.parameters(), lr=1.0),
        noise_multiplier=1.0,
        max_grad_norm=max_grad_norm,
        source=NoNoise(),
    )
    _backward(pair.module, batch)
    pair.optimizer.clip_and_accumulate()
    return _flat([parameter.summed_grad for parameter in layers.parameters()])


def _backward(module, batch):
    batch[0].requires_grad_()
    logits = module(batch[0])
    row_losses(logits[:, :NUM_BINS], logits[:, NUM_BINS:], batch).sum().backward()


def _flat(sums):
    return torch.cat([part.detach().flatten() for part in sums]).double().numpy()
