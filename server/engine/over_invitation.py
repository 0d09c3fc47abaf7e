"""How many devices are invited so that enough of them answer.

The number is fixed before anybody is asked, and it is the divisor, whoever answers: a round closes
at its deadline or when all have answered, never at "enough". Otherwise one device's absence would
admit another's update.
"""

from __future__ import annotations

import math
from fractions import Fraction


def invited_for(replies: int, *, dropout: float) -> int:
    """Return how many devices to invite.

    Args:
        replies: answers that are wanted, at least 1.
        dropout: share of the invited that is expected not to answer, in [0, 1).

    Returns:
        n = ⌈replies / (1 − dropout)⌉, worked out on the decimal that was written.

    Raises:
        ValueError: a number is out of bounds.
    """
    if replies < 1:
        raise ValueError(f"replies must be at least 1, got {replies}")
    if not 0.0 <= dropout < 1.0:
        raise ValueError(f"dropout must lie in [0, 1), got {dropout}")
    return math.ceil(replies / (1 - Fraction(str(dropout))))
