"""Which devices of a fleet never train: decided by the identifier alone, the same in every run.

So whoever judges a model can leave out the devices that it was trained on, without asking the run.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

HELD_OUT_SHARE = 0.2
"""The part of a fleet that rounds hold out."""


def held_out_devices(
    device_ids: Sequence[str], *, share: float = HELD_OUT_SHARE
) -> NDArray[np.bool_]:
    """Choose devices that never train, by identifier alone: the same ones in every run.

    Args:
        device_ids: stable identifiers.
        share: part of the fleet to hold out, in [0, 1).

    Returns:
        bool, shape (n_devices,).
    """
    if not 0.0 <= share < 1.0:
        raise ValueError(f"share must lie in [0, 1), got {share}")
    chosen = [turn_of(device_id, "held out") < share for device_id in device_ids]
    return np.array(chosen, np.bool_)


def turn_of(device_id: str, purpose: str) -> float:
    """Return a number in [0, 1) that an identifier has for a purpose, always the same."""
    digest = hashlib.sha256(f"{purpose}\n{device_id}".encode()).digest()
    return int.from_bytes(digest[:6], "big") / 2.0**48
