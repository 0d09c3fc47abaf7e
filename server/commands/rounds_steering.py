"""`fedcell rounds pause` and `cancel`, and how `resume` lifts a pause of a running process."""

from __future__ import annotations

import contextlib
import getpass
import json
import os
import platform
import shlex
import sys
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from ..runs.control import Request
    from ..runs.reading import Look

CANCEL_WAIT_S = 60.0

Run = Annotated[Path, typer.Argument(help="Folder of the run, as --out named it.")]
Reason = Annotated[str, typer.Option(help="Why, for the record.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object.")]
Yes = Annotated[bool, typer.Option("--yes", help="Do not ask back.")]


def pause(run: Run, reason: Reason = "", as_json: AsJson = False) -> None:
    """Hold a run before its next invitation; the round at hand is finished first.

    A pause outlives the process: a run that is taken up again holds until `rounds resume` lifts it.
    Ends with 1 where the run is over.
    """
    from ..runs.control import ask_pause

    look = _look_at_open_run(run, "nothing to pause")
    request = _request(reason)
    ask_pause(run, request)
    go_on = f"fedcell rounds resume {shlex.quote(str(run.resolve()))}"
    said = f"holds before its next invitation; go on with: {go_on}"
    if look.is_gone:
        said = "no process runs it now; it will hold once it is taken up again"
    _answer({"asked": "pause", "said": said}, request, run=run, as_json=as_json)


def cancel(run: Run, reason: Reason = "", yes: Yes = False, as_json: AsJson = False) -> None:
    """End a run for good: nothing more is charged, its key is destroyed, what was released stays.

    It cannot be taken back. Devices that were invited to the round at hand stay charged for it.
    Ends with 1 where the run came to its own end, 6 where its process does not answer within a
    minute, 3 where the run is ended and run.json cannot be read to say so.
    """
    from ..runs.ending import Released
    from ..runs.reading import RunReportError

    # A report that cannot be read keeps nobody from ending the run; it is told afterwards.
    with contextlib.suppress(RunReportError):
        _look_at_open_run(run, "nothing to cancel", is_open_when_interrupted=True)
    if not yes:
        _ask_back(run)
    request = _request(reason)
    if not _end(run, request):
        print(
            f"fedcell rounds cancel: {run}: asked, and the process has not ended the run within "
            f"{CANCEL_WAIT_S:g} s; see fedcell rounds watch {run}",
            file=sys.stderr,
        )
        raise typer.Exit(6)
    released = Released.of(run)
    if as_json:
        facts = {name: getattr(released, name) for name in released.__dataclass_fields__}
        print(json.dumps({"cancelled": True, **request.to_json(), "released": facts}))
        return
    print(f"cancelled    {run}, by {request}; the stream's key is destroyed")
    print("\n".join(released.to_lines()))


def lift_pause_of_live_run(run: Path, *, as_json: bool = False) -> bool:
    """Lift the pause of a run, and tell whether a process carries it out.

    Args:
        run: folder of the run.
        as_json: whether to answer a machine.

    Returns:
        Whether a living process goes on with the run, so that nobody else must.

    Raises:
        RunMissingError: there is no run.
        RunOverError: it is finished or cancelled, or about to be.
        RequestUnclearError: a request cannot be read, so that the run goes on holding.
    """
    from ..runs.control import lift_pause, read_requests
    from ..runs.reading import RunOverError
    from ..runs.status import RunState

    look = _look_at_open_run(run, "nothing to resume", is_open_when_interrupted=True)
    request = _request("")
    was_paused = lift_pause(run, request)
    is_live = look.status is not None and not look.is_gone and not look.status.state.is_over
    if is_live:
        if read_requests(run).cancel is not None:
            raise RunOverError(run, RunState.CANCELLED, "nothing to resume")
        said = "goes on" if was_paused else "was not paused and goes on"
        _answer({"asked": "resume", "said": said}, request, run=run, as_json=as_json)
    return is_live


def _look_at_open_run(run: Path, nothing: str, *, is_open_when_interrupted: bool = False) -> Look:
    """Look at a run that is not over.

    Raises:
        RunMissingError: there is no run.
        RunOverError: it is over.
        RunReportError: nothing here says how it stands.
    """
    from ..runs.reading import RunOverError, RunReportError, look_at, read_report
    from ..runs.run_files import REPORT_FILE
    from ..runs.status import RunState

    look = look_at(run, now=datetime.now(UTC))
    if look.status is None:
        read_report(run)
        raise RunReportError(run / REPORT_FILE, "does not say how the run stands")
    state = look.status.state
    is_open = is_open_when_interrupted and state in {RunState.INTERRUPTED, RunState.FAILED}
    if state.is_over and not is_open:
        raise RunOverError(run, state, nothing)
    return look


def _request(reason: str) -> Request:
    """Make a request of the account that runs this command."""
    from ..runs.control import Request

    return Request(
        asked_by=f"{_account()}@{platform.node()}", asked_at=datetime.now(UTC), reason=reason
    )


def _account() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return f"uid {os.getuid()}"


def _ask_back(run: Path) -> None:
    if not sys.stdin.isatty():
        raise typer.BadParameter(
            "a cancel cannot be taken back; add --yes", param_hint=f"cancel {run}"
        )
    typer.confirm(f"End {run} for good? Its key is destroyed.", abort=True)


def _end(run: Path, request: Request) -> bool:
    """End a run, by its process where one has it, and tell whether it has ended in time."""
    from ..runs.control import ask_cancel
    from ..runs.ending import end_run_of_no_process

    end, has_asked = time.monotonic() + CANCEL_WAIT_S, False
    while not end_run_of_no_process(run, request, now=datetime.now(UTC)):
        if not has_asked:
            ask_cancel(run, request)
            has_asked = True
        if time.monotonic() >= end:
            return False
        time.sleep(0.2)
    return True


def _answer(facts: dict[str, str], request: Request, *, run: Path, as_json: bool) -> None:
    if as_json:
        print(json.dumps({"run": str(run), **facts, **request.to_json()}))
        return
    print(f"{run}: {facts['said']} (asked by {request})")
