"""Rows of a block of devices, with one row beside them that weighs nothing and fills gaps.

Poisson sampling takes another number of rows from each device in each step. A device's rows of a
step are filled up to the next multiple of eight, which depends on nothing but its own coins: the
shape of its products, and so every bit of them, is the same in whatever block it trains.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np

from models.closed_form_batches import ScaledRows

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray

FILLED_TO: Final = 8
"""Rows of a step come in multiples of this."""


@dataclass(frozen=True, slots=True)
class PaddedRows:
    """Rows of a block; the last row fills gaps.

    Attributes:
        inputs: float32, shape (n + 1, n_inputs), scaled, with a one at the end; zeros in the last
            row.
        exposure: float32, shape (n + 1, n_bins); zeros in the last row.
        event_bin: int8, shape (n + 1,), −1 = censored.
        cause: int8, shape (n + 1,), −1 = not known.
        has_failed: bool, shape (n + 1,), whether the row saw a failure.
        input_squares: float32, shape (n + 1,), ‖input‖².
        counts: int64, shape (n_devices,), rows of each device; they stand one after the other.
    """

    inputs: NDArray[np.float32]
    exposure: NDArray[np.float32]
    event_bin: NDArray[np.int8]
    cause: NDArray[np.int8]
    has_failed: NDArray[np.bool_]
    input_squares: NDArray[np.float32]
    counts: NDArray[np.int64]

    @staticmethod
    def of(tables: Sequence[ScaledRows]) -> PaddedRows:
        """Put the rows of the devices of a block one after the other.

        Args:
            tables: of each device, float32; at least one device, which may have no row.
        """
        rows = ScaledRows.stacked(tables)
        inputs = _with_zeros(rows.inputs)
        return PaddedRows(
            inputs=inputs,
            exposure=_with_zeros(rows.exposure),
            event_bin=np.append(rows.event_bin, np.int8(-1)),
            cause=np.append(rows.cause, np.int8(-1)),
            has_failed=np.append(rows.event_bin >= 0, np.False_),
            input_squares=np.einsum("ij,ij->i", inputs, inputs),
            counts=np.array([len(table) for table in tables], np.int64),
        )

    @property
    def num_devices(self) -> int:
        """Number of devices, those without rows too."""
        return len(self.counts)

    def batches(self, is_taken: NDArray[np.bool_], *, most: int) -> Iterator[Batch]:
        """Cut a step into batches of devices that fill up to the same number of rows.

        Args:
            is_taken: shape (n,), which rows enter the step.
            most: devices in a batch.

        Yields:
            Batches; every device is in exactly one.
        """
        taken = np.flatnonzero(is_taken)
        device = np.repeat(np.arange(self.num_devices), self.counts).take(taken)
        sizes = np.bincount(device, minlength=self.num_devices)
        widths = -(-sizes // FILLED_TO) * FILLED_TO
        table = np.full((self.num_devices, int(widths.max(initial=0))), len(is_taken), np.intp)
        firsts = np.cumsum(sizes) - sizes
        table[device, np.arange(len(taken)) - firsts.take(device)] = taken
        for width in np.unique(widths).tolist():
            alike = np.flatnonzero(widths == width)
            for start in range(0, len(alike), most):
                devices = alike[start : start + most]
                yield Batch(devices, table[devices, :width])


@dataclass(frozen=True, slots=True)
class Batch:
    """Devices whose rows of a step fill up to the same number.

    Attributes:
        devices: int, shape (n,), positions in the block, ascending.
        picked: int, shape (n, width), positions of rows; gaps hold the last row of the block. The
            width is 0 for devices whose coins took no row.
    """

    devices: NDArray[np.intp]
    picked: NDArray[np.intp]


def _with_zeros(values: NDArray[np.floating]) -> NDArray[np.float32]:
    padded = np.zeros((len(values) + 1, values.shape[1]), np.float32)
    padded[:-1] = values
    return padded
