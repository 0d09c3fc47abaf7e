"""A release of counts over Flower's grid and a privacy home, from the question to the record.

The order: whom the channel asks, their count for life (durable), the questions, the replies until
the deadline, the ledger's entry (durable), the noise. A crash in between costs the answers that
were asked for, and never noises one sum twice.
"""

from __future__ import annotations

import logging
import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from flwr.app import ConfigRecord, Message, MessageType, RecordDict

from models.wire.counts import (
    COUNTED_RECORD,
    COUNTS_QUERY,
    COUNTS_RECORD,
    QUESTION_RECORD,
    Counted,
)
from privacy import BudgetExceededError, CountRelease
from privacy.budget import CountHistory, count_limit
from privacy.counts import count_release
from privacy.discrete_accounting import mu_squared_of_count

from ..engine.exchange import exchange
from ..engine.reply_arrays import read_reply
from ..engine.rounds import RoundsError
from ..privacy_home.counted_answers import series_of
from ..privacy_home.participation_counts import AnswerCost
from ..privacy_home.privacy_errors import StreamRefusedError
from .count_release import CountCollection, count_tasks, release_counts
from .private_metrics import devices_asked

if TYPE_CHECKING:
    import threading
    from collections.abc import Callable
    from datetime import datetime

    import numpy as np
    from flwr.serverapp import Grid
    from numpy.typing import NDArray

    from models.wire.counts import CountQuestion, CountTask
    from privacy import CountChannel, EntryKind, NoiseSource, StreamPolicy

    from ..engine.flower_messages import Roster
    from ..privacy_home.privacy_ledger import PrivacyHome
    from .private_metrics import ReleasedCounts

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class CountOffice:
    """What every release of counts under one policy needs.

    Attributes:
        home: counts devices for life, and holds the ledger.
        policy: of the stream whose channels ask.
        policy_text: its signed envelope, as JSON; "" for a simulated fleet.
        source: of the noise.
        clock: gives now, aware UTC.
        stop: set from outside to end the wait for replies.
        deadline_s: how long replies are waited for.
        poll_s: pause between two looks for replies.
    """

    home: PrivacyHome
    policy: StreamPolicy
    policy_text: str
    source: NoiseSource
    clock: Callable[[], datetime]
    stop: threading.Event
    deadline_s: float = 600.0
    poll_s: float = 0.02

    def release(
        self, grid: Grid, roster: Roster, *, channel: str, question: CountQuestion
    ) -> ReleasedCounts:
        """Ask, collect, charge, noise: the next release of a channel.

        Args:
            grid: Flower's way to the nodes.
            roster: who is enrolled, and behind which node.
            channel: name of the channel in the policy.
            question: what is counted.

        Returns:
            What may leave.

        Raises:
            RoundsError: the policy has no such channel or it is spent, nobody is to be asked, or
                the wait was stopped. Once devices were asked, the release is charged all the same.
        """
        asked_of = self._channel(channel)
        asked = self._asked(roster, asked_of)
        if not asked:
            raise RoundsError(
                f"no enrolled device is one that the channel {channel!r} asks and has budget left"
            )
        if all(node_id is None for _, node_id in asked):
            raise RoundsError(f"no device that the channel {channel!r} asks can be reached now")
        index, most = self._count(
            asked_of, [device_id for device_id, _ in asked], question=question
        )
        tasks = count_tasks(
            asked,
            channel=asked_of,
            index=index,
            question=question,
            policy=self.policy_text,
            deadline_s=self.deadline_s,
        )
        collection = CountCollection(tasks)
        for reply in exchange(
            grid,
            [_question(node_id, task) for node_id, task in tasks.items()],
            deadline_s=self.deadline_s,
            stop=self.stop,
            poll_s=self.poll_s,
        ):
            read = read_counted(reply, size=question.size)
            collection.add(reply.metadata.src_node_id, read)
        released = release_counts(
            collection,
            asked_of,
            most_answers=most,
            policy_digest=self.policy.digest,
            source=self.source,
            charge=self._charge,
            privacy=self.policy.privacy,
        )
        released = replace(released, no_way=sum(node_id is None for _, node_id in asked))
        if released.no_way:
            logger.warning(
                "counts of %r: %d of %d devices asked are behind no node that is here, and count "
                "as zeros",
                channel,
                released.no_way,
                len(asked),
            )
        if self.stop.is_set():
            raise RoundsError(f"release {index} of {channel!r} was stopped: charged, not released")
        return released

    def _count(
        self, channel: CountChannel, device_ids: list[str], *, question: CountQuestion
    ) -> tuple[int, int]:
        """Count devices for the next release; return its number and the most answers of a device.

        A release that a crash cut off after its devices were counted is charged first, unreleased:
        its number is used, and the ledger has no gaps.

        Raises:
            RoundsError: the channel is spent, or its releases so far had another sensitivity, which
                is a constant of its accounting.
        """
        before = self._releases(channel)
        bound = math.sqrt(question.sensitivity_squared)
        if any(not math.isclose(event.sensitivity, bound) for event in before):
            raise RoundsError(
                f"the channel {channel.name!r} has released counts of sensitivity "
                f"{before[0].sensitivity:g}, not {bound:g}; keep the number of values"
            )
        for index in (len(before), len(before) + 1):
            if index >= channel.max_answers:
                raise RoundsError(
                    f"the channel {channel.name!r} is spent after {channel.max_answers} releases; "
                    "a new policy has to account for more"
                )
            try:
                return index, self.home.charge_answers(
                    series_of(self.policy.digest, channel.name),
                    index,
                    device_ids,
                    cost=self._cost(channel),
                )
            except BudgetExceededError as error:
                raise RoundsError(f"channel {channel.name!r}: {error}") from error
            except StreamRefusedError:
                self._charge(
                    count_release(
                        channel,
                        index=index,
                        sensitivity_squared=question.sensitivity_squared,
                        cohort_size=len(device_ids),
                        most_answers=index + 1,
                        policy_digest=self.policy.digest,
                        privacy=self.policy.privacy,
                    )
                )
        raise RoundsError(f"another process releases counts of {channel.name!r}; try again")

    def _releases(self, channel: CountChannel) -> list[CountRelease]:
        """The releases of a channel that the ledger holds, read anew under its lock."""
        self.home.life_counts([])
        events = [entry.event for entry in self.home.entries]
        return [
            event
            for event in events
            if isinstance(event, CountRelease)
            and (event.policy_digest, event.channel) == (self.policy.digest, channel.name)
        ]

    def _charge(self, event: CountRelease) -> str:
        kind: EntryKind = "simulated" if self.source.is_simulated else "stream"
        return self.home.charge(event, kind=kind, at=self.clock()).hash

    def _asked(self, roster: Roster, channel: CountChannel) -> list[tuple[str, int | None]]:
        """Identifier and node of each device that is asked; None for one that no node names.

        Only who has budget left for the answer, by all that it was ever invited to and asked for: a
        device that was once in a round is not one that never trains, whatever its identifier says.
        """
        known = [
            (roster.device_ids[position], roster.node_ids[position])
            for position in devices_asked(roster.device_ids, channel)
        ]
        counts = self.home.life_counts([device_id for device_id, _ in known])
        may_answer = counts.may_answer(self._cost(channel))
        return [one for one, may in zip(known, may_answer, strict=True) if may]

    def _cost(self, channel: CountChannel) -> AnswerCost:
        privacy = self.policy.privacy
        return AnswerCost(
            mu_squared=mu_squared_of_count(channel.noise_multiplier),
            mu_squared_limit=count_limit(
                privacy, history=CountHistory(), held_out=channel.held_out
            ),
            mu_squared_in_all=privacy.mu_squared_in_all,
            held_out=channel.held_out,
        )

    def _channel(self, name: str) -> CountChannel:
        for channel in self.policy.channels:
            if channel.name == name:
                return channel
        known = ", ".join(one.name for one in self.policy.channels) or "none"
        raise RoundsError(f"the policy has no channel {name!r}; it has {known}")


def _question(node_id: int, task: CountTask) -> Message:
    return Message(
        RecordDict({QUESTION_RECORD: ConfigRecord({**task.to_plain()})}),
        dst_node_id=node_id,
        message_type=f"{MessageType.QUERY}.{COUNTS_QUERY}",
        group_id=str(task.index),
    )


def read_counted(reply: Message, *, size: int) -> tuple[NDArray[np.generic], Counted] | None:
    """Read a reply's array and facts; None for an error or what does not have their form.

    Args:
        reply: as it came; anybody may have written it.
        size: of an honest answer.
    """
    return read_reply(
        reply,
        array_record=COUNTS_RECORD,
        facts_record=COUNTED_RECORD,
        size=size,
        facts_of=Counted.from_plain,
    )
