"""A cohort trained by several processes of this machine, each a share of its blocks.

Rows lie on disk and are mapped by every process; a task carries identifiers and weights there, and
one integer sum comes back. Integer sums are exact, and a device's bits are its own, so the number
of processes changes none.
"""

from __future__ import annotations

import multiprocessing
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Self

import numpy as np

from ..training_row_files import RowFiles
from .cohort_block import CohortBlock
from .training import DEVICES_A_BLOCK

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from models.wire.rounds import RoundTask


class CohortProcesses:
    """Processes that train, started once and kept for round after round.

    A script that makes them must guard its start by `__name__ == "__main__"`.

    Args:
        row_folder: as `write_row_files` left it.
        seed: of the devices' randomness; None draws from the operating system's entropy.
        num_processes: that train side by side.
        has_fast_noise: whether seeded numbers are `FastSeededNoise`.
    """

    def __init__(
        self,
        row_folder: Path,
        *,
        seed: int | None,
        num_processes: int,
        has_fast_noise: bool = False,
    ) -> None:
        self._of_devices = (str(row_folder), seed, has_fast_noise)
        self._num_processes = num_processes
        self._pool = ProcessPoolExecutor(
            max_workers=num_processes, mp_context=multiprocessing.get_context("spawn")
        )

    def __enter__(self) -> Self:
        """Return the processes."""
        return self

    def __exit__(self, *_: object) -> None:
        """End them."""
        self._pool.shutdown(cancel_futures=True)

    def sum_of(self, task: RoundTask, weights: NDArray[np.float32]) -> NDArray[np.int64]:
        """Train the devices of a task and add their updates up.

        Args:
            task: of a step; names at least one device.
            weights: of the round, float32, shape (n_weights,).

        Returns:
            int64, shape (grid.size(n_weights),): the sum that one process gives.
        """
        waiting = [
            self._pool.submit(_sum_of_part, self._of_devices, part, weights)
            for part in _parts(task, at_least=self._num_processes)
        ]
        total: NDArray[np.int64] = np.sum([part.result() for part in waiting], axis=0)
        return total


def _parts(task: RoundTask, *, at_least: int) -> list[RoundTask]:
    """Cut a task into equal parts of no more than a block, as many for each process."""
    ids = task.device_ids
    rounds = -(-len(ids) // (at_least * DEVICES_A_BLOCK))
    size = -(-len(ids) // (at_least * rounds))
    return [
        replace(task, device_ids=ids[start : start + size], pseudonyms=())
        for start in range(0, len(ids), size)
    ]


def _sum_of_part(
    of_devices: tuple[str, int | None, bool], task: RoundTask, weights: NDArray[np.float32]
) -> NDArray[np.int64]:
    row_folder, seed, has_fast_noise = of_devices
    block = CohortBlock(_row_files(row_folder), 0, seed, has_fast_noise)
    return block.relay_task(task, weights, waited_s=0.0)[0]


@lru_cache(maxsize=1)
def _row_files(row_folder: str) -> RowFiles:
    return RowFiles(Path(row_folder))
