"""The one door to Parquet: named columns of known kinds, read with checks and written whole."""

from __future__ import annotations

import os
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import Enum
from typing import TYPE_CHECKING, Any, Self

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from .durable_file import refuse_special_file
from .errors import DatasetError, PlaceRefusedError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    Columns = Mapping[str, NDArray[Any]]


class Kind(Enum):
    """What a column holds, and as what it is read.

    TEXT: object array of str (None where null). NUMBER: float64 (NaN where null).
    TIME: float64, seconds since the Unix epoch, UTC (NaN where null); times without a zone
    are taken as UTC. FLAG: object array of True, False and None.
    """

    TEXT = "text"
    NUMBER = "number"
    TIME = "timestamp (UTC)"
    FLAG = "true or false"


@dataclass(frozen=True, slots=True)
class Column:
    """A column that a table has or may have."""

    kind: Kind
    required: bool = True
    nullable: bool = True


_DAMAGE = (pa.ArrowException, OSError, ValueError)
"""What pyarrow raises over bytes that are no table, or whose text is no UTF-8."""

_FIRST_YEAR, _LAST_YEAR = 1685, 2254
_EARLIEST_S = datetime(_FIRST_YEAR, 1, 1, tzinfo=UTC).timestamp()
_TOO_LATE_S = datetime(_LAST_YEAR + 1, 1, 1, tzinfo=UTC).timestamp()
"""float64 holds the microseconds of these years exactly."""
_TICKS_A_SECOND = {"s": 1, "ms": 10**3, "us": 10**6}

_ARROW_TYPES = {
    Kind.TEXT: pa.string(),
    Kind.NUMBER: pa.float64(),
    Kind.TIME: pa.timestamp("us", tz="UTC"),
    Kind.FLAG: pa.bool_(),
}


def read_table(
    path: Path,
    columns: Mapping[str, Column],
    *,
    renamed: Mapping[str, str] | None = None,
    others_allowed: bool = False,
) -> dict[str, NDArray[Any]]:
    """Read the named columns of a Parquet file, or of every part in a folder.

    Args:
        path: a file, or a folder whose `*.parquet` parts are read in the order of their names.
        columns: the columns known, by name.
        renamed: foreign column name -> our name.
        others_allowed: False refuses a column that is not in `columns`.

    Returns:
        One array a column that is present, all of the same length.

    Raises:
        DatasetError: with the file, the column and a remedy.
    """
    parts = sorted(path.glob("*.parquet")) if path.is_dir() else [path]
    if not parts:
        raise DatasetError(path, "the folder holds no .parquet part", "write the parts first")
    tables = [
        _read_part(part, columns, renamed or {}, others_allowed=others_allowed) for part in parts
    ]
    present = [name for name in columns if all(name in table for table in tables)]
    for name in columns:
        if any(name in table for table in tables) and name not in present:
            remedy = "write the same columns into every part"
            raise DatasetError(path, f"column {name} is missing in some parts", remedy)
    return {name: np.concatenate([table[name] for table in tables]) for name in present}


def _open(path: Path) -> Any:
    if not path.exists():
        raise DatasetError(path, "no such file", "check the path")
    if path.stat().st_size == 0:
        raise DatasetError(path, "the file is empty (0 bytes)", "write or copy it again")
    try:
        return pq.ParquetFile(path)
    except _DAMAGE as error:
        reason = str(error).split("\n", 1)[0]
        remedy = "write or copy it again"
        raise DatasetError(path, f"not a readable Parquet file ({reason})", remedy) from error


def _read_part(
    path: Path, columns: Mapping[str, Column], renamed: Mapping[str, str], *, others_allowed: bool
) -> dict[str, NDArray[Any]]:
    file = _open(path)
    found = file.schema_arrow.names
    for name in found:
        if found.count(name) > 1:
            raise DatasetError(path, f"column {name} is there twice", "keep one of them")
    names = {name: renamed.get(name, name) for name in found}
    unknown = [name for name, ours in names.items() if ours not in columns]
    if unknown and not others_allowed:
        remedy = f"map or remove it (known: {', '.join(columns)})"
        raise DatasetError(path, f"unknown column {unknown[0]!r}", remedy)
    missing = [
        name for name, known in columns.items() if known.required and name not in names.values()
    ]
    if missing:
        raise DatasetError(path, f"column {missing[0]} is missing", "add it or map a column to it")
    wanted = {foreign: ours for foreign, ours in names.items() if ours in columns}
    if len(set(wanted.values())) < len(wanted):
        raise DatasetError(path, "two columns map to the same name", "correct the column map")
    try:
        table = file.read(columns=list(wanted))
        return {
            ours: _to_numpy(path, ours, columns[ours], table[foreign])
            for foreign, ours in wanted.items()
        }
    except _DAMAGE as error:
        reason = str(error).split("\n", 1)[0]
        remedy = "write or copy it again"
        raise DatasetError(path, f"the Parquet file is damaged ({reason})", remedy) from error


def _to_numpy(path: Path, name: str, column: Column, data: Any) -> NDArray[Any]:
    kind = column.kind
    is_time = pa.types.is_timestamp(data.type) or pa.types.is_date(data.type)
    text_types = (pa.types.is_string(data.type), pa.types.is_large_string(data.type))
    is_text = any(text_types) or pa.types.is_dictionary(data.type)
    is_number = pa.types.is_integer(data.type) or pa.types.is_floating(data.type)
    is_number = is_number or pa.types.is_decimal(data.type)
    fits = {
        Kind.TEXT: is_text,
        Kind.NUMBER: is_number,
        Kind.TIME: is_time,
        Kind.FLAG: pa.types.is_boolean(data.type),
    }[kind] or pa.types.is_null(data.type)
    if not fits:
        remedy = f"write it as {kind.value}"
        raise DatasetError(path, f"column {name} is of type {data.type}", remedy)
    if not column.nullable and data.null_count:
        row = pc.index(pc.is_null(data), value=True).as_py()
        raise DatasetError(path, f"column {name} is null in row {row}", "fill it in")
    if kind is Kind.TEXT:
        return np.asarray(data.cast(pa.string()).to_numpy(), dtype=object)
    if kind is Kind.NUMBER:
        return np.asarray(data.cast(pa.float64(), safe=False).to_numpy(), dtype=np.float64)
    if kind is Kind.FLAG:
        return np.array(data.to_pylist(), dtype=object)
    return _seconds(path, name, data)


def _seconds(path: Path, name: str, data: Any) -> NDArray[np.float64]:
    if not pa.types.is_timestamp(data.type):
        data = data.cast(pa.timestamp("ms" if pa.types.is_date64(data.type) else "s"))
    if data.type.unit == "ns":
        data = data.cast(pa.timestamp("us", tz=data.type.tz), safe=False)
    unit = data.type.unit
    ticks = data.cast(pa.int64())
    a_second = float(_TICKS_A_SECOND[unit])
    seconds = pc.divide(ticks.cast(pa.float64(), safe=False), a_second).to_numpy()
    beyond = (seconds < _EARLIEST_S) | (seconds >= _TOO_LATE_S)
    if beyond.any():
        row = int(np.argmax(beyond))
        what = (
            f"column {name} holds the time {np.datetime64(ticks[row].as_py(), unit)} in row {row}"
        )
        remedy = f"times must lie in the years {_FIRST_YEAR} to {_LAST_YEAR}; correct value or unit"
        raise DatasetError(path, what, remedy)
    return np.asarray(seconds, dtype=np.float64)


def write_table(path: Path, columns: Columns, kinds: Mapping[str, Kind]) -> None:
    """Write columns as one Parquet file; it appears whole or not at all.

    Args:
        path: the file to write; an existing one is replaced.
        columns: one array a column, equally long; None or NaN is written as null.
        kinds: the kind of each column, in the order in which they are written.
    """
    with TableWriter(path, kinds) as writer:
        writer.write(columns)


class TableWriter:
    """Writes one Parquet file in pieces; the file appears when the last piece is safe on disk."""

    def __init__(self, path: Path, kinds: Mapping[str, Kind]) -> None:
        """Prepare to write `path` with columns of `kinds`."""
        self._path = path
        self._aside = path.with_name(f".{path.name}.{os.getpid()}.part")
        self._kinds = kinds
        self._schema = pa.schema([(name, _ARROW_TYPES[kind]) for name, kind in kinds.items()])
        self._writer: Any = None

    def __enter__(self) -> Self:
        """Open the file aside.

        Raises:
            PlaceRefusedError: a folder or device is there, or the folder cannot be written.
        """
        refuse_special_file(self._path)
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            self._writer = pq.ParquetWriter(self._aside, self._schema, compression="zstd")
        except OSError as error:
            what = f"cannot be written ({error.strerror})"
            raise PlaceRefusedError(self._path, what, "choose another place") from error
        return self

    def write(self, columns: Columns) -> None:
        """Append rows."""
        arrays = [_to_arrow(columns[name], kind) for name, kind in self._kinds.items()]
        self._writer.write_table(pa.Table.from_arrays(arrays, schema=self._schema))

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        """Put the whole file in place, or leave nothing behind."""
        try:
            self._writer.close()
            if kind is None:
                with self._aside.open("rb") as file:
                    os.fsync(file.fileno())
                self._aside.replace(self._path)
        finally:
            self._aside.unlink(missing_ok=True)


def _to_arrow(values: NDArray[Any], kind: Kind) -> Any:
    if kind in (Kind.TEXT, Kind.FLAG):
        return pa.array(values, type=_ARROW_TYPES[kind], from_pandas=True)
    numbers = np.asarray(values, dtype=np.float64)
    missing = np.isnan(numbers)
    if kind is Kind.NUMBER:
        return pa.array(numbers, type=pa.float64(), mask=missing)
    micros = np.where(missing, 0.0, np.round(numbers * 1e6)).astype(np.int64)
    return pa.array(micros, type=pa.int64(), mask=missing).cast(_ARROW_TYPES[kind])


def rows_of(order: Sequence[str], codes: NDArray[np.object_]) -> NDArray[np.int64]:
    """Return the position of each identifier in `order`, −1 where it is not in it."""
    found = pc.index_in(pa.array(codes, pa.string()), value_set=pa.array(order, pa.string()))
    return np.asarray(pc.fill_null(found, -1).to_numpy(zero_copy_only=False), dtype=np.int64)
