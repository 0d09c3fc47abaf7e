"""What the noise costs over this fleet, said in one sentence with figures."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from models.metrics import Quality

TOO_CLOSE = 0.01
"""Average precisions that differ by less are not told apart: there is one fleet, and one draw."""


def noise_statement(
    *,
    default: Quality,
    private: Quality,
    without_noise: Quality,
    devices: int,
    noise_multiplier: float,
    num_weights: int,
) -> str:
    """Say what the rounds gave with noise and without, and who won.

    Args:
        default: where both began.
        private: after the private rounds.
        without_noise: after the same rounds without noise.
        devices: invited to each round.
        noise_multiplier: σ of the released steps, in clipping norms.
        num_weights: of the network.

    Returns:
        One sentence or two. Where noise undoes what the rounds learn, it says so, and which cohort
        the rule of thumb n ≥ σ √P asks for.
    """
    before = default.average_precision
    after = private.average_precision
    clear = without_noise.average_precision
    if before is None or after is None or clear is None:
        return "No failure fell into the judged windows, so the cost of noise cannot be measured."
    figures = (
        f"average precision {before:.3f} before the rounds, {after:.3f} after them, and "
        f"{clear:.3f} after the same rounds without noise"
    )
    needed = math.ceil(noise_multiplier * math.sqrt(num_weights))
    wanted = f"a cohort of {needed:,} or more devices (σ √P) would carry the rounds"
    fleet = f"a fleet of {devices:,} devices"
    if clear <= before - TOO_CLOSE:
        return f"The rounds themselves do not help this fleet, noise or not: {figures}."
    if after <= before - TOO_CLOSE:
        return f"Noise wins over {fleet}: {figures}; {wanted}."
    if after < before + TOO_CLOSE <= clear:
        return f"Noise eats what {fleet} could learn: {figures}; {wanted}."
    if after < clear - TOO_CLOSE:
        return f"The private rounds help {fleet}, and noise costs {clear - after:.3f}: {figures}."
    if after < before + TOO_CLOSE:
        return f"The rounds change little for {fleet}, with noise or without: {figures}."
    return f"The private rounds help {fleet}, and noise costs next to nothing: {figures}."
