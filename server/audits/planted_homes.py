"""Every planted defect: those of noise, sum and claim, and two of the counts of who was invited."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from dataclasses import replace
from typing import TYPE_CHECKING, Final

from privacy.audit.planted import DEFECTS

from ..privacy_home.home_files import COUNTS_FILE

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from privacy.audit.parts import AggregationParts

_FORGET_STEPS: Final = "UPDATE stream_devices SET participations = 0, last_step = -1000000"
_FORGET_TIMES: Final = "UPDATE stream_devices SET participations = 0"
_FORGET_LIVES: Final = "UPDATE devices SET participations = 0, mu_squared = 0.0"


def separation_ignored(parts: AggregationParts) -> AggregationParts:
    """The home forgets when a device was last invited: steps lie closer than the noise's bands."""
    return replace(parts, counted=lambda home: _change(home, _FORGET_STEPS))


def cap_ignored(parts: AggregationParts) -> AggregationParts:
    """The home forgets how often a device was invited, as by a counter that was reset."""
    return replace(parts, counted=lambda home: _change(home, _FORGET_TIMES, _FORGET_LIVES))


def _change(home: Path, *statements: str) -> None:
    with closing(sqlite3.connect(home / COUNTS_FILE)) as connection, connection:
        for statement in statements:
            connection.execute(statement)


PLANTED: Final[dict[str, Callable[[AggregationParts], AggregationParts]]] = {
    **DEFECTS,
    "separation ignored": separation_ignored,
    "cap ignored": cap_ignored,
}
"""Every planted defect by name, in the order of a report."""
