"""One release of counts: tasks out, replies in, the ledger's entry, the noise, the record.

Without Flower and without files: who carries messages hands tasks on and replies in; `charge` makes
the ledger's entry durable. A reply that is missing, late or refused is zeros.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from models.wire.counts import CountTask
from privacy.counts import count_release, noised

from ..engine.aggregation import CohortSum, ReplyRefusal
from .private_metrics import ReleasedCounts, count_reply_refusal

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from numpy.typing import NDArray

    from models.wire.counts import Counted, CountQuestion
    from privacy import CountChannel, CountRelease, NoiseSource, PrivacyPolicy


def count_tasks(
    asked: Sequence[tuple[str, int | None]],
    *,
    channel: CountChannel,
    index: int,
    question: CountQuestion,
    policy: str,
    deadline_s: float = 0.0,
) -> dict[int, CountTask]:
    """Split the devices that are asked into one task a node.

    Args:
        asked: identifier and node of each device; one without a node is zeros.
        channel: of the policy.
        index: which release of the channel.
        question: what is counted.
        policy: the signed envelope of the stream's policy, as JSON text.
        deadline_s: for which answers are waited for; 0 does not say.

    Returns:
        Tasks by node.
    """
    behind: dict[int, list[str]] = defaultdict(list)
    for device_id, node_id in asked:
        if node_id is not None:
            behind[node_id].append(device_id)
    return {
        node_id: CountTask(
            channel=channel.name,
            index=index,
            cohort_size=len(asked),
            device_ids=tuple(device_ids),
            question=question,
            policy=policy,
            deadline_s=deadline_s,
        )
        for node_id, device_ids in behind.items()
    }


@dataclass(slots=True)
class CountCollection:
    """The running sum of one release; its memory does not depend on the number of replies.

    Attributes:
        tasks: by node, all of one question.
        sum: of the replies that were found good, and how many were not.
    """

    tasks: Mapping[int, CountTask]
    sum: CohortSum = field(init=False)
    _answered: set[int] = field(init=False, default_factory=set)

    def __post_init__(self) -> None:
        """Begin with the sum of nothing."""
        if not self.tasks:
            raise ValueError("tasks must ask at least one node")
        self.sum = CohortSum.empty(self.question.size)

    @property
    def question(self) -> CountQuestion:
        """What is counted."""
        return next(iter(self.tasks.values())).question

    @property
    def cohort_size(self) -> int:
        """Devices asked over all nodes."""
        return next(iter(self.tasks.values())).cohort_size

    def add(self, node_id: int, reply: tuple[NDArray[np.generic], Counted] | None) -> None:
        """Judge one reply, and add it or count why it is zeros.

        Args:
            node_id: who replied.
            reply: array and facts; None for an error or what does not have their form.
        """
        if node_id not in self.tasks:
            self.sum.refuse(ReplyRefusal.UNASKED)
        elif node_id in self._answered:
            self.sum.refuse(ReplyRefusal.DUPLICATE)
        else:
            self._answered.add(node_id)
            if reply is None:
                self.sum.refuse(ReplyRefusal.MALFORMED)
                return
            total, counted = reply
            refusal = count_reply_refusal(total, counted, task=self.tasks[node_id])
            if refusal is None:
                self.sum.add(total.astype(np.int64), num_devices=counted.num_devices)
            else:
                self.sum.refuse(refusal)


def release_counts(
    collection: CountCollection,
    channel: CountChannel,
    *,
    most_answers: int,
    policy_digest: str,
    source: NoiseSource,
    charge: Callable[[CountRelease], str],
    privacy: PrivacyPolicy | None = None,
) -> ReleasedCounts:
    """Charge a release, then draw its noise, once.

    Args:
        collection: of all replies that came in time.
        channel: of the policy.
        most_answers: greatest number of this channel's releases, this one included, that any one
            device was asked for; the count of it is durable before the tasks leave.
        policy_digest: of the signed policy.
        source: of the noise.
        charge: makes the event's entry durable and returns its hash; its kind says whether
            `source` can be repeated.
        privacy: limits of the policy, for the ledger to keep; None where nothing is kept.

    Returns:
        What may leave. Who loses it asks anew, as a new release: the total is not kept.

    Raises:
        ValueError: a device was asked more often than the channel allows; nothing was charged.
    """
    task = next(iter(collection.tasks.values()))
    if task.channel != channel.name:
        raise ValueError(f"channel must be the tasks' {task.channel!r}, got {channel.name!r}")
    bound = collection.question.sensitivity_squared
    event = count_release(
        channel,
        index=task.index,
        sensitivity_squared=bound,
        cohort_size=collection.cohort_size,
        most_answers=most_answers,
        policy_digest=policy_digest,
        privacy=privacy,
    )
    entry_hash = charge(event)
    found = noised(
        collection.sum.total,
        channel,
        sensitivity_squared=bound,
        cohort_size=collection.cohort_size,
        source=source,
    )
    return ReleasedCounts(collection.question, found, entry_hash)
