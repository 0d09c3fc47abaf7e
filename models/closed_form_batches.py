"""Training rows as the closed form takes them: scaled, and side by side for many devices.

Devices have different numbers of rows, and Poisson sampling takes different numbers of them. Rows
of all devices stand one after the other with the bounds between them; nothing is padded.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np

from .feature_spec import NUM_FEATURES
from .network_shape import scaling

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import DTypeLike, NDArray

    from .training_rows import TrainingRows

    Floats = NDArray[np.floating[Any]]


@dataclass(frozen=True, slots=True)
class ScaledRows:
    """Rows whose features are scaled by public ranges: once a device, not in every step.

    Attributes:
        inputs: float, shape (n, 2 n_features + 1): values, missing flags and a one, whose weight is
            the first layer's bias.
        exposure: float, shape (n, n_bins).
        event_bin: int8, shape (n,), −1 = censored.
        cause: int8, shape (n,), −1 = not known.
    """

    inputs: Floats
    exposure: Floats
    event_bin: NDArray[np.int8]
    cause: NDArray[np.int8]

    def __len__(self) -> int:
        """Return the number of rows."""
        return len(self.event_bin)

    @staticmethod
    def of(rows: TrainingRows, *, dtype: DTypeLike = np.float32) -> ScaledRows:
        """Scale training rows; float32 is what torch computes in."""
        return ScaledRows(
            inputs=scaled_inputs(rows.features.astype(dtype, copy=False)),
            exposure=rows.exposure.astype(dtype, copy=False),
            event_bin=rows.event_bin,
            cause=rows.cause,
        )

    @staticmethod
    def stacked(tables: Sequence[ScaledRows]) -> ScaledRows:
        """Put the rows of several devices one after the other."""
        if len(tables) == 1:
            return tables[0]
        return ScaledRows(
            inputs=np.concatenate([table.inputs for table in tables]),
            exposure=np.concatenate([table.exposure for table in tables]),
            event_bin=np.concatenate([table.event_bin for table in tables]),
            cause=np.concatenate([table.cause for table in tables]),
        )


@dataclass(frozen=True, slots=True)
class RaggedBatch:
    """The rows of one step of several devices.

    Attributes:
        rows: of all devices, one device after the other.
        bounds: where each device's rows begin, and where the last one's end; n_devices + 1 numbers.
    """

    rows: ScaledRows
    bounds: tuple[int, ...]

    @property
    def num_devices(self) -> int:
        """Number of devices, those without a row in this step too."""
        return len(self.bounds) - 1

    @staticmethod
    def picked(rows: ScaledRows, picks: Sequence[NDArray[np.int64]]) -> RaggedBatch:
        """Take the rows that each device's coins chose.

        Args:
            rows: of all devices.
            picks: int64, shape (batch,) for each device: positions in `rows`; may be empty.
        """
        index = picks[0] if len(picks) == 1 else np.concatenate(picks)
        bounds = [0]
        for pick in picks:
            bounds.append(bounds[-1] + len(pick))
        taken = ScaledRows(
            inputs=rows.inputs[index],
            exposure=rows.exposure[index],
            event_bin=rows.event_bin[index],
            cause=rows.cause[index],
        )
        return RaggedBatch(taken, tuple(bounds))


def scaled_inputs(features: Floats) -> Floats:
    """Scale raw values as `HazardNetwork.scaled` does, by public ranges alone.

    Args:
        features: float, shape (n, n_features), raw values; NaN = missing.

    Returns:
        float of the same type, shape (n, 2 n_features + 1): values in about [-1, 1], missing flags,
        and a one.
    """
    ranges = _ranges(features.dtype.str)
    missing = np.isnan(features)
    values = np.where(missing, ranges["low"], features)
    np.minimum(np.maximum(values, ranges["low"], out=values), ranges["high"], out=values)
    columns = ranges["logged_columns"]
    logged = values[:, columns]
    values[:, columns] = np.sign(logged) * np.log(1 + np.abs(logged) / ranges["logged_scale"])
    values -= ranges["center"]
    values /= ranges["half_width"]
    values[missing] = 0
    inputs = np.empty((len(features), 2 * NUM_FEATURES + 1), features.dtype)
    np.multiply(values, ranges["seen"], out=inputs[:, :NUM_FEATURES])
    np.multiply(missing, ranges["seen"], out=inputs[:, NUM_FEATURES:-1])
    inputs[:, -1] = 1
    return inputs


@lru_cache(maxsize=2)
def _ranges(dtype: str) -> dict[str, NDArray[Any]]:
    ranges: dict[str, NDArray[Any]] = {
        name: values.astype(dtype) for name, values in scaling().items()
    }
    columns = np.flatnonzero(ranges["log_scale"] > 0)
    return ranges | {
        "logged_columns": columns,
        "logged_scale": ranges["log_scale"][columns],
    }
