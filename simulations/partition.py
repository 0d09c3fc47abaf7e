"""Splits a fleet: which devices train, which are held out, and which node each is behind.

Every device is a client of its own, so the split over devices is as uneven as the fleet is: other
users, climates, chemistries and ages behind each. Blocks only decide which virtual node trains
which devices; they never mix rows.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray


def held_out_devices(device_ids: Sequence[str], *, share: float) -> NDArray[np.bool_]:
    """Choose devices that never train, by identifier alone: the same ones in every run.

    Args:
        device_ids: stable identifiers.
        share: part of the fleet to hold out, in [0, 1).

    Returns:
        bool, shape (n_devices,).
    """
    if not 0.0 <= share < 1.0:
        raise ValueError(f"share must lie in [0, 1), got {share}")
    return np.array([_turn(device_id, "held out") < share for device_id in device_ids], np.bool_)


def block_of_devices(device_ids: Sequence[str], *, num_blocks: int) -> NDArray[np.intp]:
    """Spread devices over virtual nodes, evenly and without looking at them.

    Args:
        device_ids: stable identifiers.
        num_blocks: number of nodes, at least 1.

    Returns:
        int, shape (n_devices,): block of each device; sizes differ by at most one.
    """
    if num_blocks < 1:
        raise ValueError(f"num_blocks must be at least 1, got {num_blocks}")
    turns = [_turn(device_id, "block") for device_id in device_ids]
    rank = np.empty(len(turns), np.intp)
    rank[np.argsort(turns, kind="stable")] = np.arange(len(turns))
    return rank % num_blocks


def _turn(device_id: str, purpose: str) -> float:
    """Return a number in [0, 1) that an identifier has for a purpose."""
    digest = hashlib.sha256(f"{purpose}\n{device_id}".encode()).digest()
    return int.from_bytes(digest[:6], "big") / 2.0**48
