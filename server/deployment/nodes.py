"""Nodes of a deployment held against the authority's list: who is let in, who is shut out."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

from models.durable_file import write_durably

from ..authority.supernodes import enrolled_supernodes
from ..errors import ServerError
from ..storage.database import open_database
from ..storage.sites import Sites
from .control_api import ControlApi, control_api, node_key
from .errors import DeploymentError, ServingError
from .node_registry import NodeState, bound_devices, changes_to, enrolment_csv

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from sqlalchemy import Connection

    from .node_registry import BoundDevice, Changes, RegisteredNode
    from .place import Deployment
    from .run_keys import RunValue

MOST_AT_ONCE = 500
"""Keys that a serving process registers in one turn: it looks after its processes between."""


@dataclass(frozen=True, slots=True)
class EnrolledNodes:
    """What the authority says of nodes.

    Attributes:
        keys: public keys (PEM) of devices that are not shut out.
        gateways: of the devices that stand behind one, by device.
    """

    keys: Mapping[str, bytes]
    gateways: Mapping[str, str]


@dataclass(frozen=True)
class NodesNow:
    """Nodes after the SuperLink's list was brought up to the authority's.

    Attributes:
        enrolled: what the authority says.
        registered: what the SuperLink has now.
        changes: what was done.
        waiting: keys that are left for the next turn.
    """

    enrolled: EnrolledNodes
    registered: tuple[RegisteredNode, ...]
    changes: Changes
    waiting: int

    @cached_property
    def devices(self) -> tuple[BoundDevice, ...]:
        """Devices that may take part, each with its node; a large fleet pays once it is asked."""
        return bound_devices(self.enrolled.keys, self.registered, self.enrolled.gateways)

    @property
    def num_online(self) -> int:
        """How many nodes are online."""
        return len({one.node_id for one in self.devices if one.state is NodeState.ONLINE})


def enrolled_nodes(connection: Connection) -> EnrolledNodes:
    """Read which devices have a key for Flower, and which stand behind a gateway."""
    behind = Sites(connection).granted()
    return EnrolledNodes(
        keys={name: node_key(key) for name, key in enrolled_supernodes(connection)},
        gateways={device: gateway for gateway, named in behind.items() for device in named},
    )


def bring_up_to_date(
    api: ControlApi, enrolled: EnrolledNodes, *, most: int | None = None
) -> NodesNow:
    """Make the SuperLink's list that of the authority; who is shut out goes first.

    Args:
        api: of the SuperLink.
        enrolled: what the authority says.
        most: keys to register in this turn; None: all.
    """
    before = api.nodes()
    changes = changes_to(enrolled.keys, before)
    for node in changes.unregister:
        api.unregister(node.node_id)
    for name, key in list(changes.register.items())[:most]:
        api.register(key, name=name)
    now = api.nodes() if changes.is_needed else before
    waiting = 0 if most is None else max(len(changes.register) - most, 0)
    return NodesNow(enrolled, now, changes, waiting)


def nodes_now(deployment: Deployment, *, most: int | None = None) -> NodesNow:
    """Bring the nodes of a deployment that runs here up to date, and return them.

    Raises:
        StorageError: the hub's database cannot be read; nothing was changed.
        ServingError: the SuperLink does not answer.
        DeploymentRefusedError: it refuses.
    """
    with (
        open_database(deployment.database, must_exist=True) as database,
        database.reading() as connection,
    ):
        enrolled = enrolled_nodes(connection)
    with control_api(deployment) as api:
        return bring_up_to_date(api, enrolled, most=most)


def keep_enrolment(deployment: Deployment, devices: Sequence[BoundDevice]) -> None:
    """Write the enrolment record of devices.

    Raises:
        DeploymentError: the folder or the disk refuses; the record of before still stands.
    """
    try:
        write_durably(deployment.enrolled, enrolment_csv(devices).encode())
    except OSError as error:
        what = f"cannot be written: {error.strerror}"
        raise DeploymentError(deployment.enrolled, what, "check the folder and the disk") from None


def taking_part(found: NodesNow, *, every: bool = False) -> tuple[BoundDevice, ...]:
    """Return the devices that rounds may invite: those whose node was ever online.

    Whoever joins a fleet has a key for Flower; most small devices never run a node, and would only
    thin out the cohorts.

    Args:
        found: nodes now.
        every: also those whose node was never seen.
    """
    return tuple(
        one for one in found.devices if one.node_id is not None and (every or one.was_seen)
    )


def freshen_enrolment(deployment: Deployment, keys: Mapping[str, RunValue]) -> int:
    """Bring nodes up to date for a run, and the enrolment record where it goes by the deployment's.

    Args:
        deployment: whose nodes they are.
        keys: of the run.

    Returns:
        How many nodes are online.

    Raises:
        ServingError: no node was ever online, so that nobody can be invited.
    """
    found = nodes_now(deployment)
    if keys.get("enrolment") != str(deployment.enrolled):
        return found.num_online
    enrolled = taking_part(found)
    if not enrolled:
        remedy = f"start the nodes, and see: fedcell rounds nodes {deployment.folder}"
        raise ServingError(deployment.folder, "no node was ever online", remedy)
    keep_enrolment(deployment, enrolled)
    return found.num_online


def nodes_event(deployment: Deployment) -> Mapping[str, Any] | None:
    """Bring nodes up to date beside the processes; return what there is to tell."""
    try:
        now = nodes_now(deployment, most=MOST_AT_ONCE)
    except ServerError as error:
        return {"event": "nodes_unchanged", "why": str(error)}
    if not now.changes.is_needed:
        return None
    return {
        "event": "nodes_changed",
        "registered": sorted(now.changes.register),
        "unregistered": sorted(node.name for node in now.changes.unregister),
        "waiting": now.waiting,
    }
