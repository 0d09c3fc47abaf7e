"""Reads the folders of runs for people and scripts: status, report, and what the two come to.

Runs of yesterday have no status; what their `run.json` says stands in for it.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Final

from ..engine.rounds import RoundsError
from .outcome import outcome_of
from .run_files import REPORT_FILE
from .status import (
    EnginePhase,
    ProcessMark,
    RunState,
    RunStatus,
    is_gone,
    read_status,
)

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

UNREADABLE: Final = "cannot_be_read"
_NO_PROCESS: Final = ProcessMark(pid=0, host="", started_ticks=None)
_SPOILT: Final = (KeyError, TypeError, ValueError, AttributeError, OverflowError, RecursionError)
"""What comes of a report that parses and is none."""
_AFTER_WORDS: Final = {
    "finished": RunState.FINISHED,
    "cancelled": RunState.CANCELLED,
    "running": RunState.RUNNING,
}


class RunMissingError(RoundsError):
    """There is no run where one was named.

    Attributes:
        where: the folder.
    """

    exit_code = 4

    def __init__(self, where: object) -> None:
        """Say where, and what to do."""
        self.where = str(where)
        super().__init__(
            f"{where}: there is no run here; name the folder that --out named (it holds run.json)"
        )


class RunOverError(RoundsError):
    """A run is over, so that nothing can be asked of it any more.

    Attributes:
        where: the folder.
        state: how it ended.
    """

    def __init__(self, where: object, state: RunState, nothing: str) -> None:
        """Say how it ended, and what that leaves."""
        self.where, self.state = str(where), state
        super().__init__(f"{where}: the run is {state}: {nothing}; see fedcell rounds history")


class RunReportError(RoundsError):
    """A run's report cannot be read.

    Attributes:
        where: the file.
    """

    exit_code = 3

    def __init__(self, where: object, what: str) -> None:
        """Say where, and what is wrong."""
        self.where = str(where)
        super().__init__(f"{where}: {what}; name another run, or put a whole copy back")


@dataclass(frozen=True, slots=True, kw_only=True)
class Look:
    """One look at a run.

    Attributes:
        status: as last written; None where there is no run yet.
        is_gone: whether its process has died without a last word.
        at: when the look was taken, aware UTC.
    """

    status: RunStatus | None
    is_gone: bool
    at: datetime

    @property
    def is_over(self) -> bool:
        """Whether nothing more is to be seen of the run unless somebody takes it up again."""
        return self.status is not None and self.status.state.is_over

    @property
    def word(self) -> str:
        """How the run stands, in one word."""
        if self.status is None:
            return "absent"
        return "process_gone" if self.is_gone else str(self.status.state)

    @property
    def quiet_s(self) -> float:
        """How long ago the last sign of life was."""
        if self.status is None:
            return 0.0
        return max((self.at - self.status.heartbeat_at).total_seconds(), 0.0)

    def to_json(self) -> dict[str, Any]:
        """Return what a line for a machine holds."""
        status = {} if self.status is None else self.status.to_json()
        return {**status, "word": self.word, "seen_at": self.at.isoformat()}


def look_at(folder: Path, *, now: datetime) -> Look:
    """Look at a run once.

    Args:
        folder: of the run; it need not be there.
        now: aware UTC.
    """
    status = read_status(folder) or _status_of_yesterday(folder)
    if status is None:
        return Look(status=None, is_gone=False, at=now)
    alive = status.process.is_alive()
    return Look(status=status, is_gone=is_gone(status, now=now, alive=alive), at=now)


def read_report(folder: Path) -> dict[str, Any]:
    """Return what `run.json` holds.

    Raises:
        RunMissingError: there is none.
        RunReportError: it cannot be read.
    """
    path = folder / REPORT_FILE
    try:
        found = json.loads(path.read_bytes())
    except FileNotFoundError:
        raise RunMissingError(folder) from None
    except (OSError, ValueError, RecursionError) as error:
        raise RunReportError(path, f"cannot be read ({error})") from error
    if not isinstance(found, dict):
        raise RunReportError(path, "is no JSON object")
    return found


def runs_in(folder: Path) -> list[Path]:
    """Return the folders of runs in a folder, oldest first; the folder itself where it is one.

    Raises:
        RunMissingError: there is none.
    """
    if (folder / REPORT_FILE).is_file():
        return [folder]
    found = [path.parent for path in folder.glob(f"*/{REPORT_FILE}") if path.is_file()]
    if not found:
        raise RunMissingError(folder)
    return sorted(found, key=lambda path: (_started(path), path.name))


def run_row(folder: Path, *, now: datetime) -> dict[str, Any]:
    """Return what a table of runs says of one: how it stands, what it cost, what it reached.

    Args:
        folder: of the run.
        now: aware UTC.

    Raises:
        RunMissingError: there is no run.
        RunReportError: its report cannot be read.
    """
    report = read_report(folder)
    try:
        return _row(folder, report, now=now)
    except _SPOILT as error:
        raise RunReportError(folder / REPORT_FILE, f"is no report of a run ({error!r})") from error


def run_rows(folders: Sequence[Path], *, now: datetime) -> list[dict[str, Any]]:
    """Return a row a run; one whose report cannot be read says so, and hides no other.

    Args:
        folders: of the runs.
        now: aware UTC.
    """
    rows = []
    for folder in folders:
        try:
            rows.append(run_row(folder, now=now))
        except RoundsError as error:
            rows.append({"folder": str(folder), "state": UNREADABLE, "message": str(error)})
    return rows


def _row(folder: Path, report: Mapping[str, Any], *, now: datetime) -> dict[str, Any]:
    rounds = report.get("rounds", [])
    config, privacy = report.get("config", {}), report.get("privacy", {})
    looked_at = [record["metrics"] for record in rounds if record.get("metrics")]
    is_over = report.get("leaves_round") is not None
    came_to = outcome_of(report) if is_over else {"quality": None, "worse_than_start": []}
    return {
        "folder": str(folder),
        "run": config.get("stream"),
        "state": look_at(folder, now=now).word,
        "ended_because": report.get("ended_because"),
        "started_at": report.get("started_at"),
        "rounds_done": len(rounds),
        "num_rounds": config.get("num_rounds"),
        "noise_only": sum(bool(record.get("noise_only")) for record in rounds),
        "invited": sum(record["invited"] for record in rounds),
        "replied": sum(record["replied"] for record in rounds),
        "refused": sum(sum(record["refused"].values()) for record in rounds),
        "epsilon_release": privacy.get("epsilon_release"),
        "epsilon_release_unbounded": privacy.get("epsilon_release_unbounded"),
        "delta": privacy.get("delta"),
        "unit_of_privacy": privacy.get("unit_of_privacy"),
        "entry_kind": privacy.get("entry_kind"),
        "quality_at_start": report.get("start_metrics"),
        "quality": came_to["quality"] or (looked_at[-1] if looked_at else None),
        "worse": came_to["worse_than_start"],
    }


def status_row(status: RunStatus) -> dict[str, Any]:
    """Return the parts of a status whose change is news; signs of life alone are none."""
    fields = asdict(status)
    for name in ("heartbeat_at", "eta_at"):
        del fields[name]
    return fields


def _started(folder: Path) -> str:
    try:
        return str(read_report(folder).get("started_at", ""))
    except RoundsError:
        return ""


def _status_of_yesterday(folder: Path) -> RunStatus | None:
    """Make a status of a report from before there were any; None where there is no run."""
    try:
        made = _from_report(read_report(folder))
        return RunStatus.from_json(made.to_json())
    except (RoundsError, *_SPOILT):
        return None


def _from_report(report: Mapping[str, Any]) -> RunStatus:
    config, privacy, rounds = report["config"], report["privacy"], report["rounds"]
    last = rounds[-1] if rounds else {}
    started = datetime.fromisoformat(report["started_at"]).astimezone(UTC)
    state = _AFTER_WORDS.get(report["status"], RunState.INTERRUPTED)
    return RunStatus(
        run=config["stream"],
        state=state,
        ended_because=str(report.get("ended_because") or ""),
        phase=EnginePhase.ENDED if state.is_over else EnginePhase.BETWEEN,
        num_rounds=config["num_rounds"],
        rounds_done=len(rounds),
        noise_only_rounds=sum(bool(record.get("noise_only")) for record in rounds),
        index=last.get("index"),
        invited=last.get("invited", 0),
        replied=last.get("replied", 0),
        refused=last.get("refused", {}),
        epsilon_release=privacy["epsilon_release"],
        epsilon_planned=config["epsilon"],
        delta=privacy["delta"],
        unit_of_privacy=privacy["unit_of_privacy"],
        quality=last.get("metrics"),
        quality_index=last.get("index"),
        started_at=started,
        heartbeat_at=started + timedelta(seconds=report["seconds"]),
        process=_NO_PROCESS,
    )
