"""What becomes of a fleet, without measuring or writing anything: its lives alone.

A device depends on the seed, its number and the recipe, so blocks of devices can be lived through
in any order and on several cores, and the fleet is the same, bit for bit.
"""

from __future__ import annotations

import multiprocessing
from collections import deque
from concurrent.futures import ProcessPoolExecutor
from typing import TYPE_CHECKING

import numpy as np

from .fleet import check_size, life_block
from .recipe import FleetRecipe

if TYPE_CHECKING:
    from collections.abc import Iterator
    from concurrent.futures import Future

    from .truth import FleetTruth

DEVICES_A_BLOCK = 16_384
"""Arrays of a block stay near a core's cache, and outweigh the calls; some 20 MB a block."""
_DEFAULT_RECIPE = FleetRecipe()


def live_fleet(
    *,
    num_devices: int,
    num_days: int,
    seed: int,
    recipe: FleetRecipe = _DEFAULT_RECIPE,
    processes: int = 1,
    devices_a_block: int = DEVICES_A_BLOCK,
) -> Iterator[FleetTruth]:
    """Let a fleet live, block by block, and return the truth about its packs without daily states.

    Args:
        num_devices: as in `fleet.simulate_fleet`.
        num_days: as in `fleet.simulate_fleet`.
        seed: as in `fleet.simulate_fleet`.
        recipe: as in `fleet.simulate_fleet`.
        processes: how many blocks are lived through side by side, each in a process of its own; a
            script that asks for more than one must guard its start by `__name__ == "__main__"`.
        devices_a_block: changes no bit.

    Yields:
        The blocks' truths, in the order of the devices.

    Raises:
        ValueError: when a number is out of its range.
    """
    check_size(num_devices=num_devices, num_days=num_days)
    if processes < 1:
        raise ValueError(f"processes must be at least 1, got {processes}")
    spans = [
        (start, min(start + devices_a_block, num_devices))
        for start in range(0, num_devices, devices_a_block)
    ]
    if min(processes, len(spans)) == 1:
        for first, stop in spans:
            yield live_devices(first, stop, num_days, seed, recipe)
        return
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(max_workers=processes, mp_context=context) as pool:
        ahead: deque[Future[FleetTruth]] = deque()
        for first, stop in spans:
            ahead.append(pool.submit(live_devices, first, stop, num_days, seed, recipe))
            if len(ahead) > 2 * processes:
                yield ahead.popleft().result()
        while ahead:
            yield ahead.popleft().result()


def live_devices(
    first: int, stop: int, num_days: int, seed: int, recipe: FleetRecipe
) -> FleetTruth:
    """Let the devices first:stop live; return the truth about their packs."""
    block = life_block(
        np.arange(first, stop, dtype=np.int64), num_days=num_days, seed=seed, recipe=recipe
    )
    block.live_unseen(num_days)
    return block.truth(None)
