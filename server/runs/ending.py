"""Ends a run whose process is gone: what its own process would have done at a cancel.

Nothing that was released changes: ledger, counts and checkpoint stay as they are. The stream's key
and a sum without noise are destroyed, so that no further step of it can ever be released.
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from models.durable_file import sync_folder, write_durably

from ..streams.stream_files import discard_aggregate, lock_stream
from ..streams.stream_key import KEY_FILE
from .control import RunCancelledError
from .reading import read_report
from .run_files import REPORT_FILE
from .status import EnginePhase, RunState, write_status

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from .control import Request
    from .status import RunStatus


@dataclass(frozen=True, slots=True, kw_only=True)
class Released:
    """What a run had released by its end.

    Attributes:
        rounds: how many.
        num_rounds: of how many planned.
        epsilon: ε_release by then; None where it is unbounded.
        delta: its δ.
        unit: of privacy.
        ledger_head: hash of the run's last entry; empty where nothing was released.
    """

    rounds: int
    num_rounds: int
    epsilon: float | None
    delta: float
    unit: str
    ledger_head: str

    @staticmethod
    def by(report: Mapping[str, Any]) -> Released:
        """Read it from a run's report."""
        privacy = report["privacy"]
        return Released(
            rounds=len(report["rounds"]),
            num_rounds=report["config"]["num_rounds"],
            epsilon=privacy["epsilon_release"],
            delta=privacy["delta"],
            unit=privacy["unit_of_privacy"],
            ledger_head=(privacy["ledger_head"] or {}).get("hash", ""),
        )

    def to_lines(self) -> list[str]:
        """Say it in lines for a person."""
        if not self.rounds:
            return ["released     nothing: no round had come to its end"]
        spent = "unbounded" if self.epsilon is None else f"{self.epsilon:.3f} at δ = {self.delta:g}"
        return [
            f"released     {self.rounds} of {self.num_rounds} rounds; they stay in the ledger",
            f"ε_release    {spent}",
            f"             unit: {self.unit}",
            f"ledger head  {self.ledger_head}",
        ]


def end_run_of_no_process(folder: Path, status: RunStatus, request: Request) -> None:
    """End a run for good whose process is gone.

    Args:
        folder: of the run.
        status: as last written.
        request: who asked, and when.

    Raises:
        HomeUnavailableError: a process runs it, and will read the request itself.
        RunReportError: its report cannot be read.
    """
    lock = lock_stream(folder)
    try:
        report = read_report(folder)
        (folder / KEY_FILE).unlink(missing_ok=True)
        discard_aggregate(folder)
        sync_folder(folder)
        report["status"] = "cancelled"
        text = json.dumps(report, indent=2, allow_nan=False, ensure_ascii=False) + "\n"
        write_durably(folder / REPORT_FILE, text.encode())
        ended = replace(
            status,
            state=RunState.CANCELLED,
            phase=EnginePhase.ENDED,
            message=str(RunCancelledError(request)),
            deadline_at=None,
            eta_at=None,
            held_by="",
        )
        write_status(folder, ended, durably=True)
    finally:
        os.close(lock)
