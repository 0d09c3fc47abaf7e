"""Whether a run ever began, by one rule, and how a process may enter its folder.

A run has begun once anybody may have been invited: a step is marked, a release is charged, or its
report tells of a round, or of what nobody can read. What has not begun may be removed by the
process that made it, and by nobody else. Nobody is invited before the report is there, so a folder
without one was killed before it began, and begins anew.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from enum import Enum, auto
from typing import TYPE_CHECKING, Final

from ..privacy_home.ledger_file import LEDGER_FILE
from ..streams.stream_files import CHECKPOINT_FILE, STEP_FILE
from ..streams.stream_key import KEY_FILE
from .run_files import COMMAND_FILE, REPORT_FILE

if TYPE_CHECKING:
    from pathlib import Path

_OF_A_RUN: Final = (LEDGER_FILE, REPORT_FILE, KEY_FILE, STEP_FILE, CHECKPOINT_FILE)


class WayIn(Enum):
    """How a process may enter the folder of a run."""

    BEGIN = auto()
    BEGIN_ANEW = auto()
    GO_ON = auto()
    IS_TAKEN = auto()
    HOLDS_NOTHING = auto()


@dataclass(frozen=True, slots=True, kw_only=True)
class Traces:
    """What of a run is in a folder.

    Attributes:
        names: its files, in the order in which they are told.
        has_command: whether it is noted how the run was started.
        has_report: whether its report holds anything.
        rounds: that the report tells of; None where it cannot be read, or there is none.
        has_charged: whether a ledger of its own holds anything.
    """

    names: tuple[str, ...]
    has_command: bool
    has_report: bool
    rounds: int | None
    has_charged: bool

    @staticmethod
    def of(path: Path) -> Traces:
        """Look at a folder, which need not be there."""
        report = _content(path / REPORT_FILE)
        return Traces(
            names=tuple(name for name in _OF_A_RUN if (path / name).exists()),
            has_command=(path / COMMAND_FILE).exists(),
            has_report=bool(report),
            rounds=_rounds_in(report),
            has_charged=bool(_content(path / LEDGER_FILE)),
        )

    @property
    def has_begun(self) -> bool:
        """Whether anybody may have been invited."""
        is_told = self.has_report and self.rounds != 0
        return STEP_FILE in self.names or self.has_charged or is_told

    def way_in(self, *, is_resumed: bool) -> WayIn:
        """Decide how a process may enter.

        Args:
            is_resumed: whether it comes to go on with the run.
        """
        if not is_resumed:
            return WayIn.IS_TAKEN if self.names else WayIn.BEGIN
        if not (self.names or self.has_command):
            return WayIn.HOLDS_NOTHING
        if not (self.has_begun or self.has_report):
            return WayIn.BEGIN_ANEW
        return WayIn.GO_ON if CHECKPOINT_FILE in self.names else WayIn.HOLDS_NOTHING


def _content(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return b""


def _rounds_in(report: bytes) -> int | None:
    try:
        return len(json.loads(report)["rounds"])
    except (ValueError, KeyError, TypeError, RecursionError):
        return None
