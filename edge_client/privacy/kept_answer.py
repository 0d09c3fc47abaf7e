"""The answer that a device has just given, kept so that the very same bits can be sent again.

A server that was interrupted between asking a cohort and committing its sum asks the same cohort
for the same step once more, and must get what it got before. A device never trains twice for one
step, so it keeps its answer from the debit until the server's receipt, until its next step takes
the place, or until its owner withdraws. The answer is a named value of the store: durable when
`keep_answer` returns, sealed where the store is, carried along when the store is sealed anew, and
gone with it.

It is resent only for the task that it answers, bit for bit, and only while that step is the last
that the ledger holds. Asked for the same step in any other way, the device answers zeros.
"""

from __future__ import annotations

import base64
import binascii
import zlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from privacy.budget import Refusal
from privacy.events import Participation

from ..store.mailbox import KEPT_ANSWER_FACT
from .ledger_file import read_device_ledger
from .other_places import erasure_of
from .task_policy import refused, verified_policy

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from models.wire.rounds import RoundTask

    from ..store.sqlite_file import StoreFile
    from .ledger_file import DeviceLedger

_BYTES: Final = 8


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class KeptAnswer:
    """An answer that was debited and may be sent again.

    Attributes:
        stream: of the step.
        index: of the step.
        digest: of the task and the weights that it answers: `models.wire.rounds.task_digest`.
        entry: hash of the ledger's last entry when it was debited.
        total: int64, what left, shape (n_weights,) or one longer; None for zeros.
    """

    stream: str
    index: int
    digest: str
    entry: str
    total: NDArray[np.int64] | None

    def to_json(self) -> dict[str, Any]:
        """Return the answer as a named value."""
        total = self.total
        return {
            "stream": self.stream,
            "index": self.index,
            "digest": self.digest,
            "entry": self.entry,
            "total": None if total is None else _text_of(total),
        }

    @staticmethod
    def from_json(value: object) -> KeptAnswer | None:
        """Return the answer behind a named value; None where it is none."""
        if not isinstance(value, dict):
            return None
        names = (value.get("stream"), value.get("digest"), value.get("entry"))
        stream, digest, entry = names
        index, total = value.get("index"), value.get("total")
        if not (isinstance(stream, str) and isinstance(digest, str) and isinstance(entry, str)):
            return None
        if type(index) is not int or not isinstance(total, str | None):
            return None
        try:
            vector = None if total is None else _vector_of(total)
        except (binascii.Error, ValueError, zlib.error):
            return None
        return KeptAnswer(stream=stream, index=index, digest=digest, entry=entry, total=vector)


def answer_again(
    store: StoreFile, task: RoundTask, *, digest: str, keys: Mapping[str, bytes]
) -> KeptAnswer | None:
    """Decide whether a task is one that was answered, and return the answer then.

    Args:
        store: the open store.
        task: as the server sent it.
        digest: of the task and its weights.
        keys: Ed25519 public keys (32 raw bytes) that may sign policies, by key id.

    Returns:
        The answer, to be sent as it is; None where the step is not the one whose answer is kept,
        and then the ledger's rules decide.

    Raises:
        ParticipationRefusedError: the step is asked for in another way than it was answered, the
            device was erased, or its policy is signed by nobody who is known any more.
        LedgerError: the ledger cannot be relied on.
    """
    kept = KeptAnswer.from_json(store.fact(KEPT_ANSWER_FACT))
    if kept is None or (kept.stream, kept.index) != (task.stream, task.index):
        return None
    if not is_last_step(kept, read_device_ledger(store.path, store)):
        return None
    if (erasure := erasure_of(store.path)) is not None:
        what = f"the device's data was erased ({erasure}); nothing is sent again"
        raise refused(Refusal.ERASED, what)
    if kept.digest != digest:
        what = (
            f"step {task.index} of {task.stream!r} was answered for task {kept.digest[:12]}, "
            f"and is asked again as {digest[:12]}"
        )
        raise refused(Refusal.ASKED_OTHERWISE, what)
    verified_policy(task.policy, keys)
    return kept


def is_last_step(kept: KeptAnswer, ledger: DeviceLedger) -> bool:
    """Tell whether an answer is to the step that a ledger debited last, in this very ledger."""
    taken = [event for event in ledger.events if isinstance(event, Participation)]
    if not taken or (taken[-1].stream, taken[-1].index) != (kept.stream, kept.index):
        return False
    return any(entry.hash == kept.entry for entry in ledger.entries)


def keep_answer(
    store: StoreFile,
    task: RoundTask,
    total: NDArray[np.int64] | None,
    *,
    digest: str,
    ledger: DeviceLedger,
) -> None:
    """Keep an answer durably, in the place of the one before; only then may it leave.

    Args:
        store: the open store.
        task: that it answers.
        total: int64, what is about to leave; None for zeros.
        digest: of the task and its weights.
        ledger: as it was once the step was debited.

    Raises:
        StoreError: the store refuses; nothing may leave then.
    """
    kept = KeptAnswer(
        stream=task.stream, index=task.index, digest=digest, entry=ledger.head, total=total
    )
    store.keep_fact(KEPT_ANSWER_FACT, kept.to_json())


def drop_answer(store: StoreFile, *, stream: str, index: int) -> bool:
    """Drop the answer to a step, whose sum the server has: it will not be asked for again.

    Returns:
        Whether one was dropped.

    Raises:
        StoreError: the store refuses.
    """
    kept = KeptAnswer.from_json(store.fact(KEPT_ANSWER_FACT))
    if kept is None or (kept.stream, kept.index) != (stream, index):
        return False
    store.keep_fact(KEPT_ANSWER_FACT, None)
    return True


def _text_of(total: NDArray[np.int64]) -> str:
    """Write numbers as text, each byte of theirs apart: high bytes say little but the sign."""
    planes = total.astype("<i8").view(np.uint8).reshape(-1, _BYTES).T
    return base64.b64encode(zlib.compress(planes.tobytes(), 1)).decode("ascii")


def _vector_of(text: str) -> NDArray[np.int64]:
    content = zlib.decompress(base64.b64decode(text.encode("ascii"), validate=True))
    planes = np.frombuffer(content, np.uint8).reshape(_BYTES, -1)
    return np.ascontiguousarray(planes.T).view("<i8").reshape(-1).astype(np.int64)
