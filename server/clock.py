"""The server's time: the machine's, or a simulated one that a demonstration passes in."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from .errors import SettingError

if TYPE_CHECKING:
    from pathlib import Path

Clock = Callable[[], datetime]
"""Returns the time, aware, UTC."""


def machine_clock() -> datetime:
    """Return the machine's time."""
    return datetime.now(UTC)


def clock_from(start: datetime, *, monotonic: Callable[[], float] = time.monotonic) -> Clock:
    """Return a clock that shows `start` now and runs on from there at the usual pace."""
    begun = monotonic()
    return lambda: start + timedelta(seconds=monotonic() - begun)


def clock_from_file(path: Path, *, monotonic: Callable[[], float] = time.monotonic) -> Clock:
    """Return a clock that follows a file: whenever its text changes, time goes on from there.

    A file that is being replaced, or holds no time for a moment, leaves the clock as it runs.

    Args:
        path: holds one ISO time with a zone.
        monotonic: what the clock runs by.

    Raises:
        SettingError: the file cannot be read or holds no time.
    """
    text = _read(path)
    running = clock_from(parse_time("clock_file", text), monotonic=monotonic)

    def now() -> datetime:
        nonlocal text, running
        try:
            latest = _read(path)
            if latest != text:
                running = clock_from(parse_time("clock_file", latest), monotonic=monotonic)
                text = latest
        except SettingError:
            return running()
        return running()

    return now


def parse_time(setting: str, text: str) -> datetime:
    """Return the time that a text names, UTC.

    Raises:
        SettingError: it names none, or has no zone.
    """
    remedy = "write it like 2026-01-31T08:00:00Z"
    try:
        moment = datetime.fromisoformat(text.strip())
    except ValueError:
        raise SettingError(setting, f"is no time: {text.strip()!r}", remedy) from None
    if moment.tzinfo is None:
        raise SettingError(setting, f"has no time zone: {text.strip()!r}", remedy)
    return moment.astimezone(UTC)


def _read(path: Path) -> str:
    try:
        return path.read_text()
    except (OSError, UnicodeDecodeError) as error:
        what = f"{path} cannot be read: {error}"
        raise SettingError("clock_file", what, "write one ISO time into it") from None
