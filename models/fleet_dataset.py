"""Fleet datasets: a folder of devices, telemetry and outcomes."""

from __future__ import annotations

import os
import shutil
import tomllib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from .errors import DatasetError, PlaceRefusedError
from .labels import OwnerAnswers
from .parquet_tables import Column, Kind, TableWriter, read_table, rows_of, write_table
from .telemetry import (
    CAUSES,
    CRITICALITIES,
    MEASUREMENT_NAMES,
    DeviceProfiles,
    Outcomes,
    Telemetry,
)
from .training_rows import cause_index

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

    from numpy.typing import NDArray

    ColumnMap = Mapping[str, Mapping[str, str]]

DEVICES_FILE = "devices.parquet"
TELEMETRY_FILE = "telemetry.parquet"
TELEMETRY_FOLDER = "telemetry"
OUTCOMES_FILE = "outcomes.parquet"
ANSWERS_FILE = "answers.parquet"
MOST_EOL_OF_DESIGN = 1.5

_DEVICE_COLUMNS = {
    "device_id": Column(Kind.TEXT, nullable=False),
    "device_model": Column(Kind.TEXT, required=False),
    "chemistry": Column(Kind.TEXT, required=False),
    "design_capacity_mah": Column(Kind.NUMBER, nullable=False),
    "end_of_life_capacity_mah": Column(Kind.NUMBER, nullable=False),
    "manufactured_at": Column(Kind.TIME, nullable=False),
    "region": Column(Kind.TEXT, required=False),
    "climate": Column(Kind.TEXT, required=False),
    "criticality": Column(Kind.TEXT, required=False),
}
_TELEMETRY_COLUMNS = {
    "device_id": Column(Kind.TEXT, nullable=False),
    "at": Column(Kind.TIME, nullable=False),
} | {name: Column(Kind.NUMBER, required=False) for name in MEASUREMENT_NAMES}
_OUTCOME_COLUMNS = {
    "device_id": Column(Kind.TEXT, nullable=False),
    "observed_until": Column(Kind.TIME, nullable=False),
    "failed_at": Column(Kind.TIME),
    "primary_cause": Column(Kind.TEXT, required=False),
}
_ANSWER_COLUMNS = {
    "device_id": Column(Kind.TEXT, nullable=False),
    "failed_at": Column(Kind.TIME, nullable=False),
    "primary_cause": Column(Kind.TEXT, required=False),
}


def _kinds(columns: Mapping[str, Column]) -> dict[str, Kind]:
    return {name: column.kind for name, column in columns.items()}


def read_column_map(path: Path) -> ColumnMap:
    """Read how foreign columns map to ours.

    Tables are `devices`, `telemetry`, `outcomes` and `answers`; each line of one reads
    `"their name" = "our name"`.

    Raises:
        DatasetError: when the file is no TOML or maps to a column that does not exist.
    """
    try:
        mapping = tomllib.loads(path.read_text())
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise DatasetError(path, f"not a readable TOML file ({error})", "correct it") from error
    known: dict[str, Mapping[str, Column]] = {
        "devices": _DEVICE_COLUMNS,
        "telemetry": _TELEMETRY_COLUMNS,
        "outcomes": _OUTCOME_COLUMNS,
        "answers": _ANSWER_COLUMNS,
    }
    for table, names in mapping.items():
        if table not in known or not isinstance(names, dict):
            raise DatasetError(path, f"unknown table [{table}]", f"use {', '.join(known)}")
        for ours in names.values():
            if not isinstance(ours, str) or ours not in known[table]:
                remedy = f"use one of {', '.join(known[table])}"
                raise DatasetError(path, f"[{table}] maps to unknown column {ours!r}", remedy)
    return mapping


@dataclass(frozen=True)
class Fleet:
    """A fleet dataset on disk: profiles in memory, the rest read when asked for."""

    directory: Path
    profiles: DeviceProfiles
    column_map: ColumnMap

    def telemetry(self) -> Telemetry:
        """Read the readings of all devices, in the order of `profiles`.

        Times are rounded up to whole seconds, so that no reading counts before its time.

        Raises:
            DatasetError: when the file is missing, empty, of wrong types, or speaks of a device
                that `devices.parquet` does not list.
        """
        folder = self.directory / TELEMETRY_FOLDER
        path = folder if folder.is_dir() else self.directory / TELEMETRY_FILE
        renamed = self.column_map.get("telemetry")
        table = read_table(path, _TELEMETRY_COLUMNS, renamed=renamed)
        if not len(table["device_id"]):
            raise DatasetError(path, "is empty: it holds no reading", "write at least one row")
        ids = tuple(self.profiles.device_id.tolist())
        device = _positions(path, ids, table["device_id"])
        order = np.argsort(device, kind="stable")
        values = np.full((len(device), len(MEASUREMENT_NAMES)), np.nan, np.float32)
        for column, name in enumerate(MEASUREMENT_NAMES):
            if name in table:
                values[:, column] = table[name][order]
        offsets = np.concatenate([[0], np.cumsum(np.bincount(device, minlength=len(ids)))])
        return Telemetry(
            device_ids=ids,
            offsets=offsets.astype(np.int64),
            at_s=np.ceil(table["at"][order]).astype(np.int64),
            values=values,
        )

    def has_outcomes(self) -> bool:
        """Return whether outcomes are known for this fleet."""
        return (self.directory / OUTCOMES_FILE).exists()

    def outcomes(self) -> Outcomes:
        """Read what became of each device, in the order of `profiles`.

        Raises:
            DatasetError: when there are no outcomes, or not exactly one a device.
        """
        path = self.directory / OUTCOMES_FILE
        table = read_table(path, _OUTCOME_COLUMNS, renamed=self.column_map.get("outcomes"))
        ids = tuple(self.profiles.device_id.tolist())
        position = _positions(path, ids, table["device_id"])
        if len(np.unique(position)) != len(ids) or len(position) != len(ids):
            raise DatasetError(path, "not exactly one row a device", "write one row a device")
        order = np.argsort(position)
        causes = _causes(path, table, len(ids))[order]
        return Outcomes(
            device_ids=ids,
            observed_until_s=table["observed_until"][order].astype(np.int64),
            failed_at_s=table["failed_at"][order],
            primary_cause=causes,
        )

    def answers(self) -> OwnerAnswers | None:
        """Read which owners said that a battery failed; None where nobody was asked.

        Raises:
            DatasetError: when the file cannot be read or names an unknown device or cause.
        """
        path = self.directory / ANSWERS_FILE
        if not path.exists():
            return None
        table = read_table(path, _ANSWER_COLUMNS, renamed=self.column_map.get("answers"))
        ids = tuple(self.profiles.device_id.tolist())
        causes = _causes(path, table, len(table["device_id"]))
        return OwnerAnswers(
            device=_positions(path, ids, table["device_id"]).astype(np.intp),
            failed_at_s=table["failed_at"].astype(np.int64),
            cause=np.array([cause_index(cause) for cause in causes], np.int8),
        )


def open_fleet(directory: Path, *, column_map: ColumnMap | None = None) -> Fleet:
    """Open a fleet dataset and check its devices.

    Raises:
        DatasetError: when the folder is no fleet dataset or a device's profile cannot be.
    """
    path = directory / DEVICES_FILE
    if not directory.is_dir():
        raise DatasetError(directory, "no such folder", "give the folder of a fleet dataset")
    if not path.exists():
        remedy = "make one with 'fedcell simulate fleet' or 'fedcell import-cells'"
        raise DatasetError(directory, f"not a fleet dataset ({DEVICES_FILE} is missing)", remedy)
    mapping = column_map or {}
    table = read_table(path, _DEVICE_COLUMNS, renamed=mapping.get("devices"))
    profiles = _profiles(path, table)
    return Fleet(directory=directory, profiles=profiles, column_map=mapping)


def write_fleet(
    directory: Path,
    *,
    profiles: DeviceProfiles,
    telemetry: Telemetry | Iterable[Telemetry],
    outcomes: Outcomes | None = None,
    answers: OwnerAnswers | None = None,
) -> None:
    """Write a fleet dataset; the folder appears whole or not at all.

    Args:
        directory: must not exist, or be an empty folder.
        profiles: one a device.
        telemetry: the readings, or parts of them, device by device.
        outcomes: what became of each device, where it is known.
        answers: of owners who were asked, where there are any.

    Raises:
        DatasetError: when the place is taken or cannot be written.
    """
    if directory.exists() and (not directory.is_dir() or any(directory.iterdir())):
        raise DatasetError(directory, "exists already", "choose a new folder or remove it")
    directory = directory.absolute()
    aside = directory.with_name(f".{directory.name}.{os.getpid()}.part")
    try:
        aside.mkdir(parents=True)
    except OSError as error:
        raise PlaceRefusedError(
            directory, f"cannot be written ({error.strerror})", "choose another place"
        ) from error
    try:
        write_table(
            aside / DEVICES_FILE,
            {name: getattr(profiles, name) for name in _DEVICE_COLUMNS if name != "manufactured_at"}
            | {"manufactured_at": profiles.manufactured_at_s},
            _kinds(_DEVICE_COLUMNS),
        )
        parts = [telemetry] if isinstance(telemetry, Telemetry) else telemetry
        with TableWriter(aside / TELEMETRY_FILE, _kinds(_TELEMETRY_COLUMNS)) as writer:
            for part in parts:
                writer.write(_telemetry_columns(part))
        if outcomes is not None:
            write_table(
                aside / OUTCOMES_FILE,
                {
                    "device_id": np.array(outcomes.device_ids, dtype=object),
                    "observed_until": outcomes.observed_until_s,
                    "failed_at": outcomes.failed_at_s,
                    "primary_cause": outcomes.primary_cause,
                },
                _kinds(_OUTCOME_COLUMNS),
            )
        if answers is not None:
            known = [CAUSES[cause] if cause >= 0 else None for cause in answers.cause]
            write_table(
                aside / ANSWERS_FILE,
                {
                    "device_id": profiles.device_id[answers.device],
                    "failed_at": answers.failed_at_s,
                    "primary_cause": np.array(known, dtype=object),
                },
                _kinds(_ANSWER_COLUMNS),
            )
        if directory.exists():
            directory.rmdir()
        aside.replace(directory)
    except BaseException:
        shutil.rmtree(aside, ignore_errors=True)
        raise


def _telemetry_columns(part: Telemetry) -> dict[str, NDArray[Any]]:
    ids = np.array(part.device_ids, dtype=object)
    columns: dict[str, NDArray[Any]] = {"device_id": ids[part.device_of_row()], "at": part.at_s}
    return columns | {name: part.values[:, i] for i, name in enumerate(MEASUREMENT_NAMES)}


def _causes(path: Path, table: dict[str, NDArray[Any]], count: int) -> NDArray[np.object_]:
    causes = table.get("primary_cause", np.full(count, None, dtype=object))
    for cause in set(causes.tolist()) - {None, *CAUSES}:
        remedy = f"use one of {', '.join(CAUSES)} or null"
        raise DatasetError(path, f"unknown primary_cause {cause!r}", remedy)
    return causes


def _positions(
    path: Path, ids: tuple[str, ...], device_id: NDArray[np.object_]
) -> NDArray[np.int64]:
    position = rows_of(ids, device_id)
    if (position < 0).any():
        stranger = device_id[int(np.argmin(position))]
        remedy = f"add it to {DEVICES_FILE} or remove its rows"
        raise DatasetError(path, f"device {stranger!r} is not in {DEVICES_FILE}", remedy)
    return position


def _profiles(path: Path, table: dict[str, NDArray[Any]]) -> DeviceProfiles:
    count = len(table["device_id"])
    if count == 0:
        raise DatasetError(path, "holds no device", "write at least one")
    ids, counts = np.unique(table["device_id"].astype(str), return_counts=True)
    if (counts > 1).any():
        twice = str(ids[int(np.argmax(counts))])
        raise DatasetError(path, f"device {twice!r} is listed twice", "give each device one row")
    design, end_of_life = table["design_capacity_mah"], table["end_of_life_capacity_mah"]
    bad = ~((end_of_life > 0) & (end_of_life < MOST_EOL_OF_DESIGN * design) & np.isfinite(design))
    if bad.any():
        row = int(np.argmax(bad))
        what = (
            f"device {table['device_id'][row]!r} has design_capacity_mah {design[row]:g} "
            f"and end_of_life_capacity_mah {end_of_life[row]:g}"
        )
        remedy = f"write both above 0, end of life below {MOST_EOL_OF_DESIGN} x design"
        raise DatasetError(path, what, remedy)
    segments = {
        name: np.where(_null(table.get(name), count), default, table.get(name, default))
        for name, default in (
            ("device_model", "unknown"),
            ("chemistry", "unknown"),
            ("region", "unknown"),
            ("climate", "unknown"),
            ("criticality", "medium"),
        )
    }
    for value in set(segments["criticality"].tolist()) - set(CRITICALITIES):
        remedy = f"use one of {', '.join(CRITICALITIES)}"
        raise DatasetError(path, f"unknown criticality {value!r}", remedy)
    return DeviceProfiles(
        device_id=table["device_id"],
        design_capacity_mah=design,
        end_of_life_capacity_mah=end_of_life,
        manufactured_at_s=table["manufactured_at"].astype(np.int64),
        **segments,
    )


def _null(values: NDArray[np.object_] | None, count: int) -> NDArray[np.bool_]:
    if values is None:
        return np.ones(count, bool)
    return np.array([value is None for value in values], bool)
