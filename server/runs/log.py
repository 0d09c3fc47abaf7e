"""The engine's own log: one JSON object a line in the run's folder, bounded in size.

No device, node or owner is named: rounds, counts, reasons, durations and digests of what was
released alone. Field by field: docs/reference/rounds-metrics.md.
"""

from __future__ import annotations

import contextlib
import json
import logging
from logging.handlers import RotatingFileHandler
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import datetime
    from pathlib import Path

logger = logging.getLogger(__name__)

LOG_FILE: Final = "engine.jsonl"
MOST_BYTES: Final = 5_000_000
BACKUPS: Final = 3
LEVELS: Final[dict[str, int]] = {
    "debug": logging.DEBUG,
    "info": logging.INFO,
    "warning": logging.WARNING,
    "error": logging.ERROR,
}
FIELDS: Final = frozenset(
    {
        "at",
        "level",
        "event",
        "run",
        "index",
        "phase",
        "invited",
        "replied",
        "refused",
        "noise_only",
        "seconds",
        "epsilon_release",
        "delta",
        "quality",
        "weights_sha256",
        "ledger_hash",
        "asked_by",
        "asked_at",
        "reason",
        "rounds_done",
        "num_rounds",
        "state",
        "ended_because",
        "message",
        "pid",
    }
)
"""Every field that a line may have; what is not here cannot be logged."""


class EngineLog:
    """Appends lines to a run's log; where the disk refuses, the run goes on without.

    Args:
        folder: of the run.
        run: the stream's name, which stands in every line.
        clock: gives now, aware UTC.
        level: least level that is kept.
        most_bytes: at which the file is put aside, of which `BACKUPS` are kept.
    """

    def __init__(
        self,
        folder: Path,
        *,
        run: str,
        clock: Callable[[], datetime],
        level: str = "info",
        most_bytes: int = MOST_BYTES,
    ) -> None:
        if level not in LEVELS:
            raise ValueError(f"log level must be one of {', '.join(LEVELS)}, got {level!r}")
        self._run, self._clock, self._least = run, clock, LEVELS[level]
        self._file = _WarnsOnce(
            folder / LOG_FILE,
            maxBytes=most_bytes,
            backupCount=BACKUPS,
            encoding="utf-8",
            delay=True,
        )

    def say(self, level: str, event: str, **facts: Any) -> None:
        """Append a line.

        Args:
            level: one of `LEVELS`.
            event: what happened, one word.
            facts: fields of the line, of `FIELDS` alone; what is None is left out.

        Raises:
            ValueError: a field is not one of `FIELDS`.
        """
        if unknown := facts.keys() - FIELDS:
            raise ValueError(f"fields must be of the log's own, got {', '.join(sorted(unknown))}")
        if LEVELS[level] < self._least:
            return
        told = {name: value for name, value in facts.items() if value is not None}
        line = {
            "at": self._clock().isoformat(),
            "level": level,
            "event": event,
            "run": self._run,
            **told,
        }
        record = logging.makeLogRecord({"msg": json.dumps(line, ensure_ascii=False)})
        self._file.handle(record)

    def close(self) -> None:
        """Let go of the file, also where the disk refuses what is left to write."""
        with contextlib.suppress(OSError):
            self._file.close()


class _WarnsOnce(RotatingFileHandler):
    """Takes a refusal of the disk for what it is: one warning, whatever follows."""

    _has_warned = False

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: ARG002, N802
        """Say once that lines are lost; logging's own way is a traceback a line."""
        if not self._has_warned:
            self._has_warned = True
            logger.warning("%s: lines of the engine's log are lost", self.baseFilename)
