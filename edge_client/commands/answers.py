"""How a command answers: one JSON object for machines, short lines for people."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from ..config import CONFIG_FILE, ENVIRONMENT_PREFIX, SETTINGS, DeviceConfig, read_config

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterable, Mapping

    from ..telemetry_store import TelemetryStore


def answer(arguments: argparse.Namespace, data: Mapping[str, object], lines: Iterable[str]) -> None:
    """Print the answer in the form that was asked for."""
    if getattr(arguments, "json", False):
        print(json.dumps(data, ensure_ascii=False), flush=True)
    else:
        print("\n".join(lines), flush=True)


def table(rows: Iterable[tuple[str, str]]) -> list[str]:
    """Set names and values in two columns."""
    cells = list(rows)
    width = max((len(name) for name, _ in cells), default=0) + 2
    return [f"{name:<{width}}{value}".rstrip() for name, value in cells]


def config_of(arguments: argparse.Namespace) -> DeviceConfig:
    """Put the settings together from flags, environment and file."""
    import os

    flags = {
        name: str(getattr(arguments, name))
        for name in (*SETTINGS, "config")
        if getattr(arguments, name, None) is not None
    }
    return read_config(flags, os.environ)


def config_file_of(arguments: argparse.Namespace) -> Path | None:
    """Return the TOML file of settings, None where none is named."""
    import os

    named = getattr(arguments, CONFIG_FILE, None)
    named = named or os.environ.get(ENVIRONMENT_PREFIX + CONFIG_FILE.upper())
    return None if named is None else Path(named)


def open_store(arguments: argparse.Namespace) -> TelemetryStore:
    """Open the store that a command is for, under the key that it is told."""
    from ..telemetry_store import TelemetryStore

    config = config_of(arguments)
    return TelemetryStore(config.store, key=config.key_source())


def moment(text: str) -> datetime:
    """Read an aware time from a flag; a date alone is its midnight, UTC.

    Raises:
        ValueError: it is no time between 1970 and 9000, or has no zone.
    """
    at = datetime.fromisoformat(text)
    if not 1970 < at.year < 9000:
        raise ValueError(f"the year must lie in 1971 to 8999, got {at.year}")
    if len(text) == len("2026-01-31"):
        return at.replace(tzinfo=UTC)
    if at.tzinfo is None:
        raise ValueError(f"{text} has no time zone")
    return at.astimezone(UTC)


def moment_flag(text: str) -> datetime:
    """Read a time from a flag, and say what is wrong with it as argparse wants to hear it."""
    import argparse

    try:
        return moment(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{error}; give one as 2026-01-31T08:00:00Z") from None


def now_of(arguments: argparse.Namespace) -> datetime:
    """Return the moment that a command works at: `--now`, or the system's clock."""
    given = getattr(arguments, "now", None)
    return given if isinstance(given, datetime) else datetime.now(UTC)
