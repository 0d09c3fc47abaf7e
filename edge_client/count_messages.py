"""A node's answer to a question for counts, as Flower carries it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, runtime_checkable

from flwr.app import Array, ArrayRecord, ConfigRecord, Message, RecordDict

from models.wire.counts import COUNTED_RECORD, COUNTS_RECORD, QUESTION_RECORD, Counted, CountTask
from models.wire.rounds import FLAT_ARRAY

from .count_answers import zero_answer
from .errors import TaskRefusedError

if TYPE_CHECKING:
    from collections.abc import Callable

    import numpy as np
    from flwr.app import Context
    from numpy.typing import NDArray


@runtime_checkable
class CountingBlock(Protocol):
    """Devices behind a node that answer questions for counts."""

    def count(self, task: CountTask) -> NDArray[np.int64]:
        """Return the sum of the asked devices' answers, shape (task.question.size,)."""


@dataclass(frozen=True, slots=True)
class CountsAnswer:
    """Answers with one integer vector; a block that counts nothing answers zeros.

    Attributes:
        block_of: finds the devices behind the node from its Flower context.
    """

    block_of: Callable[[Context], object]

    def __call__(self, message: Message, context: Context) -> Message:
        """Answer one message.

        Raises:
            TaskRefusedError: it holds no task that this version can read.
        """
        try:
            task = CountTask.from_plain(message.content.config_records[QUESTION_RECORD])
        except (KeyError, ValueError) as error:
            raise TaskRefusedError(f"not a question that this version can read: {error}") from error
        block = self.block_of(context)
        total = (
            block.count(task) if isinstance(block, CountingBlock) else zero_answer(task.question)
        )
        counted = Counted(channel=task.channel, index=task.index, num_devices=len(task.device_ids))
        answer = RecordDict({COUNTS_RECORD: ArrayRecord({FLAT_ARRAY: Array(total)})})
        answer[COUNTED_RECORD] = ConfigRecord({**counted.to_plain()})
        return Message(answer, reply_to=message)
