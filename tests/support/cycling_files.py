"""Small files of cycling data, in the form that laboratories hand over."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

NOMINAL_AH = 1.1
EOL_AH = 0.88


def cell_columns(
    *,
    cells: tuple[str, ...] = ("x-1", "x-2"),
    cycles: int = 40,
    fade: tuple[float, ...] = (0.004, 0.002),
) -> dict[str, NDArray]:
    """Return columns of cells that lose a share `fade` of their capacity each cycle."""
    number, rows = len(cells), len(cells) * cycles
    cycle = np.tile(np.arange(1, cycles + 1), number)
    share = 1 - np.repeat(np.resize(fade, number), cycles) * cycle

    def text(value: str) -> NDArray:
        return np.full(rows, value, dtype=object)

    return {
        "cell_id": np.repeat(np.array(cells, dtype=object), cycles),
        "dataset": text("set"),
        "chemistry": text("LFP"),
        "condition": text("4C"),
        "cycle": cycle,
        "day": cycle.astype(float),
        "capacity_ah": NOMINAL_AH * share,
        "nominal_ah": np.full(rows, NOMINAL_AH),
        "eol_capacity_ah": np.full(rows, EOL_AH),
        "charge_time_min": np.full(rows, 45.0),
        "temp_max_c": np.full(rows, 36.0),
        "temp_avg_c": np.full(rows, 31.0),
        "internal_resistance_ohm": np.full(rows, 0.017),
        "ambient_c": np.full(rows, 30.0),
        "discharge_c_rate": np.full(rows, 4.0),
        "eol_flag": (NOMINAL_AH * share < EOL_AH - 1e-9).astype(np.int8),
    }


def write_cells(
    path: Path,
    *,
    cells: tuple[str, ...] = ("x-1", "x-2"),
    cycles: int = 40,
    fade: tuple[float, ...] = (0.004, 0.002),
    without: tuple[str, ...] = (),
    order: NDArray | None = None,
    **changed: NDArray,
) -> Path:
    """Write such a file, with some columns left out or replaced and rows in another order."""
    columns = cell_columns(cells=cells, cycles=cycles, fade=fade) | changed
    kept = {name: values for name, values in columns.items() if name not in without}
    table = pa.table({name: pa.array(values, from_pandas=True) for name, values in kept.items()})
    pq.write_table(table if order is None else table.take(order), path)
    return path
