"""Opacus: makes one training loop private at record level (DP-SGD, Abadi et al. 2016).

The loop stays the caller's: it takes a module and an optimiser, and backpropagates the *sum* of the
rows' losses. Made private, the module collects per-row gradients through Opacus' hooks and the
optimiser clips each to `max_grad_norm`, adds them up and adds N(0, (σ_r · max_grad_norm)²).

What differs from Opacus as it comes:

- Noise is drawn from a `NoiseSource`, in production the operating system's entropy: a torch
  generator repeats under `torch.manual_seed`, and Opacus' `secure_mode` needs a package that cannot
  be had. Sampling does the same in `privacy.poisson_sampling`.
- A row whose gradient is not finite adds zero; as Opacus comes, one such row poisons the model.
- Sums instead of means: a mean would divide by the private size of the batch, and the mean over an
  empty batch, which Poisson sampling gives now and then, is NaN.
- No accountant inside: one engine a round would report one round's epsilon. Each run of steps is
  one `RecordLevelSteps` event for the device's `RecordAccountant`.
"""

from dataclasses import dataclass
from typing import cast

import torch
from opacus import GradSampleModule
from opacus.optimizers import DPOptimizer

from .noise import NoiseSource, OperatingSystemNoise


@dataclass(frozen=True, slots=True)
class PrivateTraining:
    """A module and an optimiser that clip and noise, to be used as the plain ones were.

    Attributes:
        module: Collects per-row gradients during backward.
        optimizer: Clips, sums, adds noise, then steps.
    """

    module: torch.nn.Module
    optimizer: torch.optim.Optimizer

    def draw_from(self, source: NoiseSource) -> None:
        """Take the noise of the next steps from another source (one for each simulated device)."""
        cast("_RowPrivateOptimizer", self.optimizer).source = source


def make_private(
    module: torch.nn.Module,
    optimizer: torch.optim.Optimizer,
    *,
    noise_multiplier: float,
    max_grad_norm: float,
    source: NoiseSource | None = None,
) -> PrivateTraining:
    """Wrap a module and its optimiser for DP-SGD.

    The gradient that the inner optimiser sees is Σ_i g_i · min(1, R/‖g_i‖₂) + N(0, (σ_r R)²), a sum
    over the batch; divide by a public expected batch size in the learning rate.

    Args:
        module: Layers that Opacus' hooks support; it is wrapped, not copied.
        optimizer: The inner optimiser over the module's parameters.
        noise_multiplier: σ_r, greater than 0.
        max_grad_norm: R, bound on the ℓ2 norm of one row's gradient.
        source: Where the noise comes from; the operating system's entropy unless given.

    Returns:
        The private pair; one pair serves any number of devices, one after the other.

    Raises:
        ValueError: σ_r or R is not greater than 0.
    """
    if not noise_multiplier > 0:
        raise ValueError(f"noise_multiplier must be greater than 0, got {noise_multiplier}")
    if not max_grad_norm > 0:
        raise ValueError(f"max_grad_norm must be greater than 0, got {max_grad_norm}")
    # Hooks, not the `ew` mode: that one fails on an empty batch. Buffers of fixed input ranges are
    # no state that training changes, which is all that `strict` guards against.
    wrapped = GradSampleModule(module, loss_reduction="sum", strict=False)
    for layer in module.modules():
        if any(parameter.requires_grad for parameter in layer.parameters(recurse=False)):
            layer.register_forward_pre_hook(_ask_for_gradient)
    return PrivateTraining(
        module=wrapped,
        optimizer=_RowPrivateOptimizer(
            optimizer,
            noise_multiplier=noise_multiplier,
            max_grad_norm=max_grad_norm,
            source=source or OperatingSystemNoise(),
        ),
    )


def _ask_for_gradient(
    _module: torch.nn.Module, inputs: tuple[torch.Tensor, ...]
) -> tuple[torch.Tensor, ...] | None:
    """Let the first layer's input ask for a gradient, as torch's backward hooks want it."""
    if inputs[0].requires_grad:
        return None
    return (inputs[0].detach().requires_grad_(), *inputs[1:])


class _RowPrivateOptimizer(DPOptimizer):  # type: ignore[misc] # opacus ships no types
    """Opacus' optimiser with noise from a `NoiseSource`, and non-finite rows worth zero."""

    def __init__(
        self,
        optimizer: torch.optim.Optimizer,
        *,
        noise_multiplier: float,
        max_grad_norm: float,
        source: NoiseSource,
    ) -> None:
        super().__init__(
            optimizer,
            noise_multiplier=noise_multiplier,
            max_grad_norm=max_grad_norm,
            expected_batch_size=None,
            loss_reduction="sum",
        )
        self.source = source

    def clip_and_accumulate(self) -> None:
        """Zero every row whose gradient is not finite, then clip and sum as Opacus does."""
        samples: list[torch.Tensor] = self.grad_samples
        if len(samples[0]) > 0:
            norms = torch.stack([sample.flatten(1).norm(dim=1) for sample in samples])
            finite = torch.isfinite(norms).all(dim=0)
            if not bool(finite.all()):
                for sample in samples:
                    sample[~finite] = 0.0
        super().clip_and_accumulate()

    def add_noise(self) -> None:
        """Add one draw for all parameters together, from the source."""
        sizes = [parameter.numel() for parameter in self.params]
        drawn = self.source.gaussian(sum(sizes), std=self.noise_multiplier * self.max_grad_norm)
        parts = torch.split(torch.from_numpy(drawn), sizes)
        for parameter, part in zip(self.params, parts, strict=True):
            noise = part.to(parameter.dtype).view_as(parameter)
            parameter.grad = parameter.summed_grad.view_as(parameter) + noise
