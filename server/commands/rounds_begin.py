"""`fedcell rounds begin`: a run over the nodes of a deployment."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from .fleet import say
from .hub import AsJson
from .rounds_deployment import Folder

if TYPE_CHECKING:
    from collections.abc import Mapping

    from ..deployment.beginning import BegunRun
    from ..deployment.place import Deployment
    from ..deployment.run_keys import RunValue


def begin(
    folder: Folder,
    said: Annotated[
        list[str] | None,
        typer.Argument(metavar="KEY=VALUE...", help="Keys of the run, such as rounds=24."),
    ] = None,
    *,
    resume: Annotated[
        Path | None,
        typer.Option(metavar="RUN", help="Go on with this run, with the keys that it began with."),
    ] = None,
    wait: Annotated[
        float, typer.Option(min=0.0, metavar="S", help="Seconds to look whether it fails at once.")
    ] = 60.0,
    as_json: AsJson = False,
) -> None:
    """Begin a run over the nodes of a deployment that is served, with the bundle that is pinned.

    Keys, files and the plan are checked first. The devices of DIR/enrolled.csv are enrolled, which
    is brought up to date, unless enrolment=FILE names others. Watch it with 'fedcell rounds watch'.
    """
    from ..clock import machine_clock
    from ..deployment.beginning import (
        begin_run,
        begun_run,
        check_keys,
        require_over,
        watch_beginning,
    )
    from ..deployment.control_api import control_api
    from ..deployment.folder import open_deployment
    from ..deployment.nodes import freshen_enrolment
    from ..deployment.run_keys import read_said

    place = open_deployment(folder)
    told = read_said(said or (), where=Path.cwd())
    before = None if resume is None else begun_run(place, resume)
    number, keys = _keys(place, told, before)
    online = freshen_enrolment(place, keys)
    check_keys(keys)
    with control_api(place) as api:
        if before is not None:
            require_over(api, before)
        begun = begin_run(api, place, keys, number=number, now=machine_clock())
        stands = watch_beginning(api, begun, patience_s=wait, sleep=time.sleep)
    data = {
        "run": str(begun.out),
        "run_id": str(begun.run_id),
        "status": stands.status,
        "nodes_online": online,
    }
    lines = [f"begun        {begun.out}, run {begun.run_id} ({stands.status})"]
    if not online:
        lines.append("no node is online now; the run waits two minutes for one")
    say(data, [*lines, f"watch it     fedcell rounds watch {begun.out}"], as_json=as_json)


def _keys(
    place: Deployment, told: Mapping[str, RunValue], before: BegunRun | None
) -> tuple[int, dict[str, RunValue]]:
    """Return the number and the keys of a new run, or of one that goes on."""
    from ..deployment.beginning import keys_of_new_run, next_number

    if before is not None:
        return before.number, {**before.said, **told, "resume": 1}
    number = next_number(place)
    return number, keys_of_new_run(place, told, number=number)
