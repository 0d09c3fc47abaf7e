"""Training rows of a simulated fleet, on disk once and mapped into memory by every worker.

Messages then carry identifiers, not rows. Simulation only: the rows of real devices stay on them.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from models.training_rows import TrainingRows

from .partition import block_of_devices

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from numpy.typing import NDArray

_COLUMNS = ("features", "exposure", "event_bin", "cause")
_DEVICES_FILE = "devices.json"
_OFFSETS_FILE = "offsets.npy"


def write_row_files(
    directory: Path, *, device_ids: Sequence[str], rows: TrainingRows, num_blocks: int
) -> None:
    """Write rows, sorted by device, with the block of each device.

    Args:
        directory: an empty folder.
        device_ids: of all devices, those without rows too; `rows.device` points into it.
        rows: of all devices.
        num_blocks: virtual nodes to spread the devices over.
    """
    counts = np.bincount(rows.device, minlength=len(device_ids))
    offsets = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
    order = np.argsort(rows.device, kind="stable")
    for name in _COLUMNS:
        np.save(directory / f"{name}.npy", getattr(rows, name)[order])
    np.save(directory / _OFFSETS_FILE, offsets)
    blocks = block_of_devices(device_ids, num_blocks=num_blocks)
    devices = {"device_ids": list(device_ids), "blocks": blocks.tolist()}
    (directory / _DEVICES_FILE).write_text(json.dumps(devices), encoding="utf-8")


@dataclass(frozen=True)
class RowFiles:
    """Rows as `write_row_files` left them.

    Attributes:
        directory: where they are.
    """

    directory: Path

    @cached_property
    def _columns(self) -> dict[str, NDArray[np.generic]]:
        return {
            name: np.load(self.directory / f"{name}.npy", mmap_mode="r", allow_pickle=False)
            for name in _COLUMNS
        }

    @cached_property
    def _offsets(self) -> NDArray[np.int64]:
        offsets: NDArray[np.int64] = np.load(self.directory / _OFFSETS_FILE, allow_pickle=False)
        return offsets

    @cached_property
    def _devices(self) -> tuple[dict[str, int], NDArray[np.intp]]:
        value = json.loads((self.directory / _DEVICES_FILE).read_text(encoding="utf-8"))
        positions = {device_id: index for index, device_id in enumerate(value["device_ids"])}
        return positions, np.array(value["blocks"], np.intp)

    def device_ids(self, block: int) -> tuple[str, ...]:
        """Identifiers of the devices of one block."""
        positions, blocks = self._devices
        return tuple(device_id for device_id, index in positions.items() if blocks[index] == block)

    def rows(self, device_id: str) -> TrainingRows:
        """Rows of one device, copied out of the mapped files."""
        index = self._devices[0][device_id]
        part = slice(int(self._offsets[index]), int(self._offsets[index + 1]))
        columns = {name: np.array(values[part]) for name, values in self._columns.items()}
        return TrainingRows(
            device=np.zeros(part.stop - part.start, np.intp),
            features=columns["features"].astype(np.float32, copy=False),
            exposure=columns["exposure"].astype(np.float32, copy=False),
            event_bin=columns["event_bin"].astype(np.int8, copy=False),
            cause=columns["cause"].astype(np.int8, copy=False),
        )
