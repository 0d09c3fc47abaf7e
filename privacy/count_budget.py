"""What counts may spend: which kinds are asked of whom, how often, under how much noise."""

import math
from typing import Final

from .accountant import mu_for
from .discrete_accounting import count_noise_multiplier_for
from .policy import CountChannel

METRICS: Final = "metrics"
SIMILAR_DEVICES: Final = "similar_devices"
DRIFT: Final = "drift"
METRICS_A_YEAR: Final = 12
COUNTS_A_YEAR: Final = 4


def count_channels(
    *, epsilon: float, delta: float, update_share: float, years: float, has_held_out: bool = True
) -> tuple[CountChannel, ...]:
    """Counts for some years: monthly metrics of held-out devices, two histograms a quarter.

    Held-out devices spend their whole μ² on metrics; the others share what updates leave evenly
    between similar devices and drift.

    Args:
        epsilon: ε_release of one device.
        delta: its δ.
        update_share: part of μ² that updates may use, in (0, 1).
        years: how long counts are asked for.
        has_held_out: whether there are devices that never train.
    """
    mu_squared = mu_for(epsilon=epsilon, delta=delta) ** 2
    left = (1 - update_share) * mu_squared
    channels = [
        _channel(SIMILAR_DEVICES, left / 2, years * COUNTS_A_YEAR),
        _channel(DRIFT, left / 2, years * COUNTS_A_YEAR),
    ]
    if has_held_out:
        channels.append(_channel(METRICS, mu_squared, years * METRICS_A_YEAR, held_out=True))
    return tuple(channels)


def _channel(
    name: str, mu_squared: float, answers: float, *, held_out: bool = False
) -> CountChannel:
    asked = max(1, math.floor(answers + 1e-9))
    return CountChannel(
        name=name,
        noise_multiplier=count_noise_multiplier_for(mu_squared=mu_squared, answers=asked),
        max_answers=asked,
        held_out=held_out,
    )
