"""What passes over Flower's grid: the devices behind nodes, tasks, replies and receipts."""

from __future__ import annotations

import time
from collections import defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING

from flwr.app import Array, ArrayRecord, ConfigRecord, Message, MessageType, RecordDict

from models.wire.rounds import (
    CONTRIBUTION_RECORD,
    DEVICES_RECORD,
    FLAT_ARRAY,
    RECEIPT_MESSAGE,
    RECEIPT_RECORD,
    SUM_RECORD,
    TASK_RECORD,
    WEIGHTS_RECORD,
    Contribution,
    NodeFailure,
    RoundTask,
)

from .device_claims import judged_claims
from .exchange import REPLY_BYTES, exchange
from .reply_arrays import read_reply
from .rounds import RoundsError

if TYPE_CHECKING:
    import threading
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    import numpy as np
    from flwr.serverapp import Grid
    from numpy.typing import NDArray

    from models.wire.rounds import ReleaseReceipt

    from .device_claims import ClaimRefusal, ClaimRule
    from .rounds import RoundsConfig


_BYTES_A_NAME = 80
"""A device's identifier of 64 bytes, as Flower writes it among others."""


@dataclass(frozen=True, slots=True)
class Roster:
    """Devices, and behind which node each of them is, as far as that is known.

    Attributes:
        device_ids: stable identifiers, sorted.
        node_ids: Flower node of each device, in the same order; None for one that no node names.
        refused: nodes whose claims did not count, and why.
    """

    device_ids: tuple[str, ...]
    node_ids: tuple[int | None, ...]
    refused: tuple[tuple[int, ClaimRefusal], ...] = ()

    @staticmethod
    def of(
        devices_of_node: Mapping[int, Sequence[object]],
        *,
        rule: ClaimRule | None = None,
        held: Mapping[str, int] | None = None,
    ) -> Roster:
        """Make the roster from what the nodes answered.

        Args:
            devices_of_node: what each node names.
            rule: what it may claim; None for nodes of this process's own making.
            held: the node that has had each device so far, and has answered now.
        """
        claims = judged_claims(devices_of_node, rule, held=held)
        device_ids = tuple(sorted(claims.node_of))
        nodes = tuple(claims.node_of[device_id] for device_id in device_ids)
        return Roster(device_ids, nodes, claims.refused)

    def only(self, positions: NDArray[np.intp]) -> Roster:
        """Return the roster of some devices."""
        return Roster(
            tuple(self.device_ids[position] for position in positions),
            tuple(self.node_ids[position] for position in positions),
            self.refused,
        )

    def over(self, device_ids: Sequence[str]) -> Roster:
        """Return the roster of the devices that are enrolled, whether a node names them or not."""
        node_of = dict(zip(self.device_ids, self.node_ids, strict=True))
        return Roster(tuple(device_ids), tuple(map(node_of.get, device_ids)), self.refused)

    @property
    def reached(self) -> tuple[int, ...]:
        """The nodes behind which a device is, each as often as it has devices."""
        return tuple(node_id for node_id in self.node_ids if node_id is not None)

    def behind(self, cohort: Sequence[str]) -> dict[int, list[str]]:
        """Return a cohort's devices by the node that they are behind, as far as it is known."""
        node_of = dict(zip(self.device_ids, self.node_ids, strict=True))
        found: dict[int, list[str]] = defaultdict(list)
        for device_id in cohort:
            node_id = node_of.get(device_id)
            if node_id is not None:
                found[node_id].append(device_id)
        return found

    def tasks(
        self,
        cohort: Sequence[str],
        *,
        config: RoundsConfig,
        index: int,
        clipping_norm: float,
        has_norm_bit: bool = False,
        policy: str = "",
        pseudonym: Callable[[str], str] | None = None,
    ) -> dict[int, RoundTask]:
        """Split a cohort into one task a node.

        Args:
            cohort: stable identifiers.
            config: of the run.
            index: of the step.
            clipping_norm: C of the step.
            has_norm_bit: whether it adapts.
            policy: signed envelope, empty without a key.
            pseudonym: of a device in this step; None where devices give no receipts.
        """
        return {
            node_id: RoundTask(
                stream=config.stream,
                index=index,
                clipping_norm=clipping_norm,
                has_norm_bit=has_norm_bit,
                cohort_size=config.cohort_size,
                device_ids=tuple(device_ids),
                recipe=config.recipe,
                policy=policy,
                deadline_s=config.deadline_s,
                pseudonyms=() if pseudonym is None else tuple(map(pseudonym, device_ids)),
            )
            for node_id, device_ids in self.behind(cohort).items()
        }


def task_messages(
    tasks: Mapping[int, RoundTask], *, weights: NDArray[np.float32]
) -> Iterator[Message]:
    """Make the message of each node's task, with the weights to train from, as it is asked for."""
    array = ArrayRecord({FLAT_ARRAY: Array(weights)})
    for node_id, task in tasks.items():
        yield Message(
            RecordDict({WEIGHTS_RECORD: array, TASK_RECORD: ConfigRecord({**task.to_plain()})}),
            dst_node_id=node_id,
            message_type=MessageType.TRAIN,
            group_id=str(task.index),
        )


def receipt_messages(node_ids: Iterable[int], receipt: ReleaseReceipt) -> list[Message]:
    """Return the message that brings each node the receipt of a release."""
    record = ConfigRecord({**receipt.to_plain()})
    return [
        Message(
            RecordDict({RECEIPT_RECORD: record}),
            dst_node_id=node_id,
            message_type=RECEIPT_MESSAGE,
            group_id=str(receipt.index),
        )
        for node_id in node_ids
    ]


def failure_of(reply: Message) -> NodeFailure | None:
    """Return why a node failed, None for a reply that is no error.

    Whatever is not one of the codes is `OTHER`: it may be an exception's text from a device that
    runs something else, and nobody shall read on the server what it holds.
    """
    if not reply.has_error():
        return None
    try:
        return NodeFailure(reply.error.reason or "")
    except ValueError:
        return NodeFailure.OTHER


def read_contribution(
    reply: Message, *, num_weights: int
) -> tuple[NDArray[np.generic], Contribution] | None:
    """Read a reply's array and facts; None for whatever does not have their form.

    Args:
        reply: as it came; anybody may have written it.
        num_weights: of the model; an array of many times its bytes is not even read.
    """
    return read_reply(
        reply,
        array_record=SUM_RECORD,
        facts_record=CONTRIBUTION_RECORD,
        size=num_weights,
        facts_of=Contribution.from_plain,
    )


def ask_for_devices(
    grid: Grid,
    *,
    num_nodes: int,
    deadline_s: float,
    stop: threading.Event,
    poll_s: float = 0.05,
    rule: ClaimRule | None = None,
    may_be_empty: bool = False,
) -> Roster:
    """Wait for the nodes and ask each which devices are behind it.

    Args:
        grid: Flower's way to the nodes.
        num_nodes: how many nodes to wait for.
        deadline_s: how long to wait, first for nodes, then for their answers.
        stop: ends the wait.
        poll_s: shortest pause between two looks.
        rule: what a node may claim; None for nodes of this process's own making.
        may_be_empty: whether it is known who is enrolled, so that nobody need be here yet.

    Returns:
        The roster of all devices named.

    Raises:
        RoundsError: too few nodes came, or none named a device.
    """
    end = time.monotonic() + deadline_s
    node_ids = list(grid.get_node_ids())
    while len(node_ids) < num_nodes and time.monotonic() < end and not stop.is_set():
        stop.wait(poll_s)
        node_ids = list(grid.get_node_ids())
    if len(node_ids) < num_nodes and not may_be_empty:
        raise RoundsError(f"{len(node_ids)} of {num_nodes} nodes came within {deadline_s:g} s")
    named, failure = _named(
        grid, node_ids, rule=rule, deadline_s=deadline_s, stop=stop, poll_s=poll_s
    )
    roster = Roster.of(named, rule=rule)
    if not (roster.device_ids or may_be_empty or stop.is_set()):
        raise RoundsError(f"no node named a device that can train{failure}")
    return roster


def asked_again(
    grid: Grid,
    before: Roster,
    *,
    rule: ClaimRule,
    deadline_s: float,
    stop: threading.Event,
    poll_s: float,
    on_look: Callable[[], None] | None = None,
) -> Roster:
    """Ask the nodes that are here now which devices are behind them: this only routes.

    A node that does not answer now keeps its devices, for it may come back before the round's
    deadline, and nobody takes them over meanwhile: whom another names then is behind neither, this
    time. Nobody is enrolled by this, and nobody left out.

    Args:
        grid: Flower's way to the nodes.
        before: who is enrolled, and the ways known so far.
        rule: what a node may claim.
        deadline_s: how long to wait for answers.
        stop: ends the wait.
        poll_s: shortest pause between two looks.
        on_look: as `exchange` takes it.
    """
    here = list(grid.get_node_ids())
    named, _ = _named(
        grid, here, rule=rule, deadline_s=deadline_s, stop=stop, poll_s=poll_s, on_look=on_look
    )
    known = before.behind(before.device_ids)
    held = {device: node_id for node_id in named for device in known.get(node_id, ())}
    return Roster.of({**known, **named}, rule=rule, held=held).over(before.device_ids)


def _named(
    grid: Grid,
    node_ids: Sequence[int],
    *,
    rule: ClaimRule | None,
    deadline_s: float,
    stop: threading.Event,
    poll_s: float,
    on_look: Callable[[], None] | None = None,
) -> tuple[dict[int, list[object]], str]:
    """Return what each node names, and why the last of those failed that did."""
    questions = [
        Message(RecordDict(), dst_node_id=node_id, message_type=MessageType.QUERY)
        for node_id in node_ids
    ]
    named: dict[int, list[object]] = {}
    failure, sent = "", dict[str, int]()
    for reply in exchange(
        grid,
        questions,
        deadline_s=deadline_s,
        stop=stop,
        poll_s=poll_s,
        sent=sent,
        on_look=on_look,
        most_bytes=REPLY_BYTES + _BYTES_A_NAME * (rule.most_devices if rule else 0),
    ):
        if reply.has_error():
            failure = f": {failure_of(reply)}"
            continue
        node_id = sent.get(reply.metadata.reply_to_message_id)
        device_ids = reply.content.config_records.get(DEVICES_RECORD, ConfigRecord()).get(
            "device_ids"
        )
        # Nobody speaks for another node.
        if isinstance(device_ids, list) and node_id is not None and is_from(reply, node_id):
            named[node_id] = list(device_ids)
    return named, failure


def is_from(reply: Message, node_id: int) -> bool:
    """Whether a node itself sent a reply."""
    return bool(reply.metadata.src_node_id == node_id)
