"""`fedcell rounds nodes`: who takes part in a deployment, and through which node."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from .fleet import say
from .hub import AsJson
from .rounds_deployment import Folder

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ..deployment.node_registry import BoundDevice
    from ..deployment.nodes import NodesNow
    from ..deployment.place import Deployment

LOOK_S = 1.0
TOO_FEW = 1


def nodes(
    folder: Folder,
    *,
    every: Annotated[
        bool, typer.Option("--all", help="Enrol devices too whose node was never online.")
    ] = False,
    out: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write the enrolment there as well.")
    ] = None,
    until: Annotated[
        int, typer.Option(min=0, metavar="N", help="Wait until so many nodes are online.")
    ] = 0,
    patience: Annotated[
        float, typer.Option(min=0.0, metavar="S", help="Seconds to wait for them.")
    ] = 180.0,
    as_json: AsJson = False,
) -> None:
    """Let enrolled nodes in, shut revoked ones out, list them, and write DIR/enrolled.csv.

    Ends with 1 where no node was ever online, or fewer than were waited for.
    """
    from ..deployment.folder import open_deployment
    from ..deployment.node_registry import enrolment_csv
    from ..deployment.nodes import keep_enrolment, taking_part

    place = open_deployment(folder)
    found = _nodes_once(place, until=until, patience_s=patience)
    enrolled = taking_part(found, every=every)
    if enrolled:
        keep_enrolment(place, enrolled)
    if out is not None and enrolled:
        out.write_text(enrolment_csv(enrolled), encoding="utf-8")
    data = _facts(found, enrolled) | {"enrolment": str(place.enrolled) if enrolled else None}
    say(data, _lines(found, enrolled), as_json=as_json)
    if not enrolled or found.num_online < until:
        raise typer.Exit(TOO_FEW)


def _nodes_once(place: Deployment, *, until: int, patience_s: float) -> NodesNow:
    """Return the nodes once so many are online, or patience is over.

    Raises:
        ServingError: no SuperLink answers, and nobody waits for nodes, or has waited long enough.
    """
    from ..deployment.errors import ServingError
    from ..deployment.nodes import nodes_now

    end = time.monotonic() + patience_s
    while True:
        is_last = not until or time.monotonic() >= end
        try:
            found = nodes_now(place)
        except ServingError:
            if is_last:
                raise
        else:
            if is_last or found.num_online >= until:
                return found
        time.sleep(LOOK_S)


def _facts(found: NodesNow, enrolled: Sequence[BoundDevice]) -> dict[str, Any]:
    taken = {one.device_id for one in enrolled}
    return {
        "nodes": [
            {
                "device_id": one.device_id,
                "gateway": one.gateway,
                "node_id": None if one.node_id is None else str(one.node_id),
                "state": None if one.state is None else one.state.value,
                "enrolled": one.device_id in taken,
            }
            for one in found.devices
        ],
        "online": found.num_online,
        "unregistered": [node.name for node in found.changes.unregister],
    }


def _lines(found: NodesNow, enrolled: Sequence[BoundDevice]) -> list[str]:
    lines = []
    for one in found.devices:
        node = "" if one.node_id is None else str(one.node_id)
        state = "no node" if one.state is None else one.state.value
        behind = "" if one.gateway == one.device_id else f", behind {one.gateway}"
        lines.append(f"{one.device_id:<24} {node:<20} {state}{behind}")
    lines += [f"shut out     {node.name}" for node in found.changes.unregister]
    online = f"{found.num_online} nodes online"
    return [*lines, f"{len(found.devices)} devices, {online}, {len(enrolled)} enrolled"]
