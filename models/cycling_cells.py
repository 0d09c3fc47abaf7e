"""Cycling data of laboratories -> fleet dataset: one full cycle a day, from 2024-01-01 on."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import numpy as np

from .errors import DatasetError
from .fleet_dataset import MOST_EOL_OF_DESIGN as MOST_EOL_OF_NOMINAL
from .fleet_dataset import write_fleet
from .parquet_tables import Column, Kind, read_table
from .telemetry import COLUMN, MEASUREMENTS, SECONDS_PER_DAY, DeviceProfiles, Outcomes, Telemetry

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from numpy.typing import NDArray

DAY_ZERO_S = int(datetime(2024, 1, 1, tzinfo=UTC).timestamp())

_COLUMNS = {
    "cell_id": Column(Kind.TEXT, nullable=False),
    "dataset": Column(Kind.TEXT, required=False),
    "chemistry": Column(Kind.TEXT, required=False),
    "condition": Column(Kind.TEXT, required=False),
    "cycle": Column(Kind.NUMBER, required=False),
    "day": Column(Kind.NUMBER, nullable=False),
    "capacity_ah": Column(Kind.NUMBER),
    "nominal_ah": Column(Kind.NUMBER, nullable=False),
    "eol_capacity_ah": Column(Kind.NUMBER, nullable=False),
    "charge_time_min": Column(Kind.NUMBER, required=False),
    "cc_window_min": Column(Kind.NUMBER, required=False),
    "cv_window_min": Column(Kind.NUMBER, required=False),
    "temp_max_c": Column(Kind.NUMBER, required=False),
    "temp_avg_c": Column(Kind.NUMBER, required=False),
    "internal_resistance_ohm": Column(Kind.NUMBER, required=False),
    "ambient_c": Column(Kind.NUMBER, required=False),
    "discharge_c_rate": Column(Kind.NUMBER, required=False),
    "eol_flag": Column(Kind.NUMBER, required=False),
}
_MEASURED_AS = {
    "full_charge_capacity_mah": ("capacity_ah", 1000.0),
    "charge_cycle_count": ("cycle", 1.0),
    "charge_duration_min": ("charge_time_min", 1.0),
    "battery_temp_max_c": ("temp_max_c", 1.0),
    "battery_temp_avg_c": ("temp_avg_c", 1.0),
    "internal_resistance_mohm": ("internal_resistance_ohm", 1000.0),
}


@dataclass(frozen=True, slots=True)
class ImportedCells:
    """What an import found.

    Attributes:
        profiles: one a cell.
        telemetry: one reading a cycle.
        outcomes: when each cell reached its end of life; None without `eol_flag`.
        conditions: test condition of each cell, object, shape (n_cells,).
        datasets: data set of each cell, object, shape (n_cells,).
    """

    profiles: DeviceProfiles
    telemetry: Telemetry
    outcomes: Outcomes | None
    conditions: NDArray[np.object_]
    datasets: NDArray[np.object_]


def read_cells(files: Sequence[Path]) -> ImportedCells:
    """Read cycling files as a fleet.

    `device_id` is the cell's id, unchanged; cycle day d becomes 2024-01-01T00:00Z + d days;
    design capacity is the nominal one; resistance is in milliohm. A failure is the first cycle
    with `eol_flag` 1.

    Raises:
        DatasetError: for unknown columns, wrong types, empty files, capacities that cannot be,
            several rows of one cell and day, or the same cell in two files.
    """
    tables = [_read_cells(path) for path in files]
    seen: dict[str, Path] = {}
    for path, table in zip(files, tables, strict=True):
        for cell in dict.fromkeys(table["cell_id"].tolist()):
            if cell in seen:
                what = f"cell {cell!r} is in {seen[cell]} too"
                raise DatasetError(path, what, "give each cell one file")
            seen[cell] = path
    flagged = all("eol_flag" in table for table in tables)
    count = sum(len(table["day"]) for table in tables)

    def column(name: str, missing: object = np.nan) -> NDArray[Any]:
        dtype = object if isinstance(missing, str) else float
        return np.concatenate(
            [table.get(name, np.full(len(table["day"]), missing, dtype)) for table in tables]
        )

    ids = tuple(seen)
    number = {cell: index for index, cell in enumerate(ids)}
    cell_of_row = np.array([number[cell] for cell in column("cell_id", "").tolist()], np.intp)
    day = column("day")
    order = np.lexsort((day, cell_of_row))
    cell_of_row, day = cell_of_row[order], day[order]
    offsets = np.concatenate([[0], np.cumsum(np.bincount(cell_of_row))]).astype(np.int64)
    values = np.full((count, len(MEASUREMENTS)), np.nan, np.float32)
    for name, (source, factor) in _MEASURED_AS.items():
        values[:, COLUMN[name]] = column(source)[order] * factor
    at_s = DAY_ZERO_S + np.round(day * SECONDS_PER_DAY).astype(np.int64)
    first = order[offsets[:-1]]

    def text(name: str) -> NDArray[np.object_]:
        found = column(name, "unknown")[first]
        return np.array(["unknown" if value is None else str(value) for value in found], object)

    profiles = DeviceProfiles(
        device_id=np.array(ids, dtype=object),
        device_model=text("dataset"),
        chemistry=text("chemistry"),
        design_capacity_mah=column("nominal_ah")[first] * 1000.0,
        end_of_life_capacity_mah=column("eol_capacity_ah")[first] * 1000.0,
        manufactured_at_s=np.full(len(ids), DAY_ZERO_S, np.int64),
        region=np.full(len(ids), "laboratory", dtype=object),
        climate=np.full(len(ids), "laboratory", dtype=object),
        criticality=np.full(len(ids), "medium", dtype=object),
    )
    outcomes = None
    if flagged:
        outcomes = _outcomes(ids, offsets, at_s, column("eol_flag")[order] == 1)
    return ImportedCells(
        profiles=profiles,
        telemetry=Telemetry(ids, offsets, at_s, values),
        outcomes=outcomes,
        conditions=text("condition"),
        datasets=text("dataset"),
    )


def import_cells(files: Sequence[Path], directory: Path) -> ImportedCells:
    """Read cycling files and write them as a fleet dataset, whole or not at all.

    Raises:
        DatasetError: as `read_cells`, and when the folder is taken.
    """
    cells = read_cells(files)
    write_fleet(
        directory, profiles=cells.profiles, telemetry=cells.telemetry, outcomes=cells.outcomes
    )
    return cells


def _read_cells(path: Path) -> dict[str, NDArray[Any]]:
    table = read_table(path, _COLUMNS)
    if len(table["day"]) == 0:
        raise DatasetError(path, "holds no row", "write at least one cycle")
    for name in ("nominal_ah", "eol_capacity_ah"):
        usable = (table[name] > 0) & np.isfinite(table[name])
        if not usable.all():
            row = int(np.argmin(usable))
            what = f"{name} of cell {table['cell_id'][row]!r} is {table[name][row]:g}"
            raise DatasetError(path, what, "capacities are above 0, in ampere-hours")
    beyond = table["eol_capacity_ah"] >= MOST_EOL_OF_NOMINAL * table["nominal_ah"]
    if beyond.any():
        row = int(np.argmax(beyond))
        what = (
            f"eol_capacity_ah of cell {table['cell_id'][row]!r} is "
            f"{table['eol_capacity_ah'][row]:g} at nominal_ah {table['nominal_ah'][row]:g}"
        )
        raise DatasetError(path, what, f"write it below {MOST_EOL_OF_NOMINAL} x nominal_ah")
    negative = table["capacity_ah"] < 0
    if negative.any():
        row = int(np.argmax(negative))
        what = f"capacity_ah in row {row} is {table['capacity_ah'][row]:g}"
        raise DatasetError(path, what, "leave an unmeasured capacity empty")
    if not np.isfinite(table["day"]).all() or (np.abs(table["day"]) > 100_000).any():
        raise DatasetError(path, "column day holds no usable number", "count days from 0")
    _, cell = np.unique(table["cell_id"].astype(str), return_inverse=True)
    keys = np.stack([cell, np.round(table["day"] * SECONDS_PER_DAY)])
    if np.unique(keys, axis=1).shape[1] < keys.shape[1]:
        raise DatasetError(path, "a cell has two rows for one day", "keep one row a cycle")
    return table


def _outcomes(
    ids: tuple[str, ...],
    offsets: NDArray[np.int64],
    at_s: NDArray[np.int64],
    failed: NDArray[np.bool_],
) -> Outcomes:
    rows = np.where(failed, np.arange(len(at_s)), len(at_s))
    first = np.minimum.reduceat(rows, offsets[:-1])
    has_failed = first < len(at_s)
    failed_at = np.where(has_failed, at_s[np.minimum(first, len(at_s) - 1)], np.nan)
    return Outcomes(
        device_ids=ids,
        observed_until_s=at_s[offsets[1:] - 1],
        failed_at_s=failed_at,
        primary_cause=np.array(
            ["capacity_fade" if failed else None for failed in has_failed], dtype=object
        ),
    )
