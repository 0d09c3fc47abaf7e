"""Deals the devices of a fleet out to virtual nodes.

Every device is a client of its own, so the split over devices is as uneven as the fleet is: other
users, climates, chemistries and ages behind each. Blocks only decide which virtual node trains
which devices; they never mix rows.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from models.held_out_devices import turn_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray


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
    turns = [turn_of(device_id, "block") for device_id in device_ids]
    rank = np.empty(len(turns), np.intp)
    rank[np.argsort(turns, kind="stable")] = np.arange(len(turns))
    return rank % num_blocks
