"""Where readings come from: a sensor, one set of named fields, or a file of them (CSV, JSON)."""

from __future__ import annotations

import json
from contextlib import suppress
from datetime import datetime
from typing import TYPE_CHECKING, Protocol, runtime_checkable

from models.telemetry import MEASUREMENT_NAMES, Reading

from .errors import InputError, InputMissingError, ReadingRefusedError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

FIELDS = ("at", *MEASUREMENT_NAMES)

_KNOWN = f"known are {', '.join(FIELDS)}"


class Sensor(Protocol):
    """A gauge; `edge_client.sensing.drivers` has three."""

    def read(self, now: datetime) -> Reading | None:
        """Return a reading, None where there is nothing to tell now.

        Raises:
            SensorError: the gauge failed; it is asked again.
            ReadingRefusedError: what it gave is no reading; it is counted.
        """


@runtime_checkable
class WatchingSensor(Sensor, Protocol):
    """A sensor that must look at its gauge between readings too."""

    def look(self, now: datetime) -> None:
        """Look at the gauge; called every few minutes."""

    def keep(self) -> None:
        """Keep what was seen; called in the transaction that stores the reading."""

    def kept(self) -> None:
        """Begin the next interval; called once that transaction has ended well."""

    def close(self) -> None:
        """Keep what was seen, at the end of the program."""


def reading_of(
    fields: Mapping[str, object], *, where: str, device_id: str | None = None
) -> Reading | ReadingRefusedError:
    """Make a reading of named fields.

    Args:
        fields: `at` as ISO 8601 text with a zone, measurements by name as numbers or texts of
            numbers; None and empty texts are missing. `device_id` may stand beside them.
        where: what to name when something is wrong: a file with its line, or a flag.
        device_id: whose readings these must be; None takes any.

    Returns:
        The reading, or why it is refused: a time without a zone.

    Raises:
        InputError: a field is unknown, no number, no time, or another device's.
    """
    unknown = sorted(str(name) for name in set(fields) - {*FIELDS, "device_id"})
    if unknown:
        raise InputError(where, f"unknown field {', '.join(unknown)}", _KNOWN)
    owner = fields.get("device_id")
    if owner is not None and device_id is not None and owner != device_id:
        raise InputError(
            where, f"is a reading of device {owner!r}", f"this store belongs to {device_id!r}"
        )
    at = _time(fields.get("at"), where)
    if at.tzinfo is None:
        what = f"at {at.isoformat()} has no time zone; give it as 2026-01-31T08:00:00Z"
        return ReadingRefusedError("naive_time", what)
    return Reading(
        at=at, **{name: _number(fields.get(name), name, where) for name in MEASUREMENT_NAMES}
    )


def readings_in(
    path: Path, *, device_id: str | None = None
) -> Iterator[Reading | ReadingRefusedError]:
    """Read a file of readings: CSV with a header (`.csv`), or one JSON object a line.

    Raises:
        InputMissingError: there is no such file.
        InputError: it is empty, or a line of it cannot be read.
    """
    return (reading for _, reading in numbered_readings_in(path, device_id=device_id))


def numbered_readings_in(
    path: Path, *, device_id: str | None = None
) -> Iterator[tuple[int, Reading | ReadingRefusedError]]:
    """Read a file of readings as `readings_in` does, each with the number of its line."""
    where = str(path)
    count = 0
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            is_csv = path.suffix.lower() == ".csv"
            rows = _csv_rows(file, where) if is_csv else _json_rows(file, where)
            for line, fields in rows:
                count += 1
                yield line, reading_of(fields, where=f"{where}:{line}", device_id=device_id)
    except FileNotFoundError:
        raise InputMissingError(where, "there is no such file", "check the path") from None
    except OSError as error:
        raise InputError(where, f"cannot be read: {error.strerror}", "check the path") from error
    except UnicodeDecodeError as error:
        raise InputError(where, "is not UTF-8 text", "give CSV or JSON lines") from error
    if count == 0:
        raise InputError(where, "holds no reading", "give CSV with a header, or JSON lines")


def _csv_rows(file: Iterator[str], where: str) -> Iterator[tuple[int, Mapping[str, object]]]:
    import csv

    reader = csv.DictReader(file, restkey="more values than columns")
    try:
        for fields in reader:
            yield reader.line_num, fields
    except csv.Error as error:
        line = f"{where}:{reader.line_num + 1}"
        raise InputError(line, f"is no CSV: {error}", "give CSV with a header") from error


def _json_rows(file: Iterator[str], where: str) -> Iterator[tuple[int, Mapping[str, object]]]:
    for line, text in enumerate(file, start=1):
        if text.strip():
            yield line, json_object(text, where=f"{where}:{line}")


def json_object(text: str, *, where: str) -> Mapping[str, object]:
    """Read one JSON object.

    Raises:
        InputError: the text is something else.
    """
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise InputError(where, f"is no JSON: {error}", "give one JSON object") from error
    if not isinstance(value, dict):
        raise InputError(where, f"is a JSON {type(value).__name__}", "give one JSON object")
    return value


def _time(value: object, where: str) -> datetime:
    try:
        return datetime.fromisoformat(value if isinstance(value, str) else "")
    except ValueError:
        raise InputError(
            where, f"at is no time: {value!r}", "give it as 2026-01-31T08:00:00Z"
        ) from None


def _number(value: object, name: str, where: str) -> float | None:
    if value is None or value == "":
        return None
    number = None
    if isinstance(value, int | float | str) and not isinstance(value, bool):
        with suppress(ValueError, OverflowError):
            number = float(value)
    if number is None:
        raise InputError(where, f"{name} is no number: {value!r}", "give a number, or leave it out")
    return number
