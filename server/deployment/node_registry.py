"""Which nodes a deployment lets in, and what their devices are bound to. No IO."""

from __future__ import annotations

import csv
import io
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence


class NodeState(StrEnum):
    """How Flower says that a node stands."""

    REGISTERED = "registered"
    """Let in, and never seen."""
    ONLINE = "online"
    OFFLINE = "offline"


@dataclass(frozen=True, slots=True, kw_only=True)
class RegisteredNode:
    """A node that the SuperLink lets in.

    Attributes:
        node_id: Flower's number for it.
        public_key: PEM.
        name: device that it was registered for.
        state: how it stands.
    """

    node_id: int
    public_key: bytes
    name: str
    state: NodeState


@dataclass(frozen=True, slots=True)
class Changes:
    """What makes the SuperLink's list that of the authority.

    Attributes:
        register: keys (PEM) to let in, by device.
        unregister: nodes whose keys nobody enrolled has any more.
    """

    register: Mapping[str, bytes]
    unregister: tuple[RegisteredNode, ...]

    @property
    def is_needed(self) -> bool:
        """Whether there is anything to do."""
        return bool(self.register or self.unregister)


@dataclass(frozen=True, slots=True, kw_only=True)
class BoundDevice:
    """A device that may take part, and the node that speaks for it.

    Attributes:
        device_id: its name.
        gateway: device whose node speaks for it; itself, unless it stands behind a gateway.
        node_id: of that node; None where its key is not registered yet.
        state: of that node.
    """

    device_id: str
    gateway: str
    node_id: int | None
    state: NodeState | None

    @property
    def was_seen(self) -> bool:
        """Whether its node was ever online."""
        return self.state in {NodeState.ONLINE, NodeState.OFFLINE}


def changes_to(enrolled: Mapping[str, bytes], registered: Sequence[RegisteredNode]) -> Changes:
    """Return what makes the SuperLink's list that of the authority.

    A device that joined anew has another key, and so another node: the old one goes.

    Args:
        enrolled: keys (PEM) of devices that are not shut out.
        registered: what the SuperLink has.
    """
    known = {node.public_key for node in registered}
    wanted = set(enrolled.values())
    return Changes(
        register={name: key for name, key in enrolled.items() if key not in known},
        unregister=tuple(node for node in registered if node.public_key not in wanted),
    )


def bound_devices(
    enrolled: Mapping[str, bytes],
    registered: Sequence[RegisteredNode],
    gateways: Mapping[str, str],
) -> tuple[BoundDevice, ...]:
    """Return the devices that may take part, each with the node that speaks for it.

    A gateway speaks for its devices, and is none itself.

    Args:
        enrolled: keys (PEM) of devices that are not shut out.
        registered: what the SuperLink has.
        gateways: of the devices that stand behind one, by device.
    """
    nodes = {node.public_key: node for node in registered}
    speakers = {name: name for name in enrolled} | dict(gateways)
    others = set(gateways.values())
    found = []
    for device_id in sorted(speakers):
        if device_id in others:
            continue
        key = enrolled.get(speakers[device_id])
        node = None if key is None else nodes.get(key)
        found.append(
            BoundDevice(
                device_id=device_id,
                gateway=speakers[device_id],
                node_id=None if node is None else node.node_id,
                state=None if node is None else node.state,
            )
        )
    return tuple(found)


def enrolment_csv(devices: Iterable[BoundDevice]) -> str:
    """Return the enrolment record of devices, as `server.engine.enrolment` reads it."""
    text = io.StringIO()
    rows = csv.writer(text, lineterminator="\n")
    rows.writerow(("device_id", "node_id"))
    rows.writerows((one.device_id, one.node_id) for one in devices)
    return text.getvalue()
