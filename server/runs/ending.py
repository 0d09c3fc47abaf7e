"""Ends a run whose process is gone: what its own process would have done at a cancel.

Nothing that was released changes: ledger, counts and checkpoint stay as they are. The stream's key
and a sum without noise are destroyed, so that no further step of it can ever be released.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from models.durable_file import sync_folder

from ..privacy_home.privacy_errors import HomeUnavailableError
from ..streams.stream_files import discard_aggregate, lock_stream
from ..streams.stream_key import KEY_FILE
from .control import RunCancelledError, ask_cancel, read_requests, withdraw_cancel
from .folder import write_report
from .reading import RunOverError, RunReportError, look_at, read_report
from .run_files import REPORT_FILE
from .status import EndCause, EnginePhase, RunState, write_status

if TYPE_CHECKING:
    from datetime import datetime
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
    def of(folder: Path) -> Released:
        """Read it from a run's report.

        Raises:
            RunMissingError, RunReportError: it cannot be read.
        """
        report = read_report(folder)
        try:
            privacy = report["privacy"]
            return Released(
                rounds=len(report["rounds"]),
                num_rounds=report["config"]["num_rounds"],
                epsilon=privacy["epsilon_release"],
                delta=privacy["delta"],
                unit=privacy["unit_of_privacy"],
                ledger_head=(privacy["ledger_head"] or {}).get("hash", ""),
            )
        except (KeyError, TypeError, AttributeError) as error:
            what = f"does not say what was released ({error!r})"
            raise RunReportError(folder / REPORT_FILE, what) from error

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


def end_run_of_no_process(folder: Path, request: Request, *, now: datetime) -> bool:
    """End a run for good, unless a process carries it out: then that must read the request.

    The key goes first: a report that cannot be read keeps nobody from destroying it.

    Args:
        folder: of the run.
        request: who asked, and when.
        now: aware UTC.

    Returns:
        Whether the run has ended; False where a process has it.

    Raises:
        RunOverError: it came to its own end before.
        RunReportError: it is ended, and its report cannot be read to say so there.
    """
    before = look_at(folder, now=now).status
    if before is not None and before.state is RunState.FINISHED:
        withdraw_cancel(folder)
        raise RunOverError(folder, before.state, "nothing to cancel")
    try:
        lock = lock_stream(folder)
    except HomeUnavailableError:
        return before is not None and before.state is RunState.CANCELLED
    try:
        status = look_at(folder, now=now).status
        if status is not None and status.state is RunState.FINISHED:
            return False
        ask_cancel(folder, request)
        (folder / KEY_FILE).unlink(missing_ok=True)
        discard_aggregate(folder)
        sync_folder(folder)
        if status is not None and status.state is not RunState.CANCELLED:
            write_status(folder, _cancelled(status, folder), durably=True)
        _say_in_report(folder)
    finally:
        os.close(lock)
    return True


def _cancelled(status: RunStatus, folder: Path) -> RunStatus:
    request = read_requests(folder).cancel
    return replace(
        status,
        state=RunState.CANCELLED,
        phase=EnginePhase.ENDED,
        ended_because=EndCause.CANCELLED,
        message="" if request is None else str(RunCancelledError(request)),
        deadline_at=None,
        eta_at=None,
        held_by="",
    )


def _say_in_report(folder: Path) -> None:
    try:
        report = read_report(folder)
    except RunReportError as error:
        what = "cannot be read; the run is cancelled all the same, and its key destroyed"
        raise RunReportError(folder / REPORT_FILE, what) from error
    report |= {"status": "cancelled", "ended_because": EndCause.CANCELLED}
    write_report(folder, report)
