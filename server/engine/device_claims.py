"""Which node a device is behind: what nodes claim, judged before anything is believed.

A node says which devices are behind it, and may say anything. Where two claim one device, the node
that has had it, is here and still names it keeps it; without such a one both lose it, unless the
enrolment record binds it to one of them: nobody takes another's devices, or stops them, by naming
them. Whoever names too many devices, or what is no identifier, has said nothing.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Final

from models.wire.errors import WireError
from models.wire.topics import checked_device_id

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

MOST_DEVICES_A_NODE: Final = 1000
"""Devices that one node may name where no enrolment record says which there are."""


class ClaimRefusal(StrEnum):
    """Why a node's claim on devices does not count."""

    TOO_MANY = "names_too_many_devices"
    BAD_IDENTIFIER = "names_no_device_id"
    CLAIMED_TWICE = "names_a_device_of_another_node"
    CONTESTED = "keeps_a_device_that_another_node_names"
    NOT_ITS_OWN = "names_a_device_bound_to_another_node"


@dataclass(frozen=True, slots=True, kw_only=True)
class ClaimRule:
    """What a node outside may claim.

    Attributes:
        bound: every enrolled device, and the node that it is bound to, None for any; None where
            there is no enrolment record, and whatever the nodes name is the fleet.
        most_devices: that one node may name.
    """

    bound: Mapping[str, int | None] | None = None
    most_devices: int = MOST_DEVICES_A_NODE

    @staticmethod
    def of(bound: Mapping[str, int | None] | None) -> ClaimRule:
        """Return the rule: a node may name no more devices than are enrolled."""
        if bound is None:
            return ClaimRule()
        return ClaimRule(bound=bound, most_devices=max(len(bound), 1))


@dataclass(frozen=True, slots=True)
class Claims:
    """What came of the nodes' claims.

    Attributes:
        node_of: the one node of each device.
        refused: nodes whose claims did not count or are contested, and why; each pair once, sorted.
    """

    node_of: Mapping[str, int]
    refused: tuple[tuple[int, ClaimRefusal], ...] = ()


def judged_claims(
    named: Mapping[int, Sequence[object]],
    rule: ClaimRule | None,
    *,
    held: Mapping[str, int] | None = None,
) -> Claims:
    """Judge what nodes claim.

    Args:
        named: what each node says is behind it.
        rule: what they may claim; None for nodes of this process's own making, which are believed
            but for what two of them claim.
        held: the node that has had each device so far, and has answered now.
    """
    held = held or {}
    refused: set[tuple[int, ClaimRefusal]] = set()
    claimants: dict[str, list[int]] = {}
    for node_id in sorted(named):
        taken, why = _of_node(node_id, named[node_id], rule)
        refused |= {(node_id, reason) for reason in why}
        for device_id in taken:
            claimants.setdefault(device_id, []).append(node_id)
    node_of: dict[str, int] = {}
    for device_id, nodes in claimants.items():
        holder = held.get(device_id) if len(nodes) > 1 else nodes[0]
        if holder in nodes:
            node_of[device_id] = holder
        if len(nodes) > 1:
            refused |= {
                (
                    node_id,
                    ClaimRefusal.CONTESTED if node_id == holder else ClaimRefusal.CLAIMED_TWICE,
                )
                for node_id in nodes
            }
    return Claims(node_of, tuple(sorted(refused)))


def _of_node(
    node_id: int, named: Sequence[object], rule: ClaimRule | None
) -> tuple[list[str], set[ClaimRefusal]]:
    """Return the devices that a node may claim, and why it may not claim all that it names."""
    if rule is None:
        return list(dict.fromkeys(map(str, named))), set()
    if len(named) > rule.most_devices:
        return [], {ClaimRefusal.TOO_MANY}
    taken: dict[str, None] = {}
    refused = set()
    for device_id in named:
        if not isinstance(device_id, str) or not _is_identifier(device_id):
            return [], {ClaimRefusal.BAD_IDENTIFIER}
        if rule.bound is not None and device_id not in rule.bound:
            continue
        bound_to = None if rule.bound is None else rule.bound[device_id]
        if bound_to is not None and bound_to != node_id:
            refused.add(ClaimRefusal.NOT_ITS_OWN)
            continue
        taken[device_id] = None
    return list(taken), refused


def _is_identifier(text: str) -> bool:
    try:
        checked_device_id(text)
    except WireError:
        return False
    return True
