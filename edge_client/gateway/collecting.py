"""Collects the answers of a site's devices to one step: each is judged alone, added, forgotten.

No IO. What is kept is one sum of integers, a receipt a device, and the parts of answers that are
not whole yet, never more than the step's own size a device. Whatever is wrong counts as silence,
and stands in the tally by its reason: nothing that one device sends changes another's answer.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

import numpy as np

from models.wire.contribution import Answer, open_contribution
from models.wire.errors import WireError
from models.wire.parts import Joining, read_part
from models.wire.rounds import DeviceReceipt

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from numpy.typing import NDArray

    from models.wire.contribution import ContributionForm, Step
    from models.wire.envelope import VerifyKey
    from models.wire.parts import Part
    from models.wire.sealing import OpeningKey

MOST_TRIES: Final = 3
"""Whole answers of one device that are opened: each costs a millisecond of work."""
MOST_PARTS_OVER: Final = 8
"""Parts that one device may send, as a multiple of those that its answer has."""

NOT_INVITED: Final = "not_invited"
OTHER_STEP: Final = "other_step"
DUPLICATE: Final = "duplicate"
TOO_MANY_PARTS: Final = "too_many_parts"
TOO_MANY_TRIES: Final = "too_many_tries"
BEYOND_BOUND: Final = "beyond_bound"
FOREIGN_RECEIPT: Final = "foreign_receipt"
BAD_RECEIPT: Final = "bad_receipt"


@dataclass(frozen=True, slots=True, kw_only=True)
class Invited:
    """A device of the site that is asked in a step.

    Attributes:
        key: that it signs with.
        pseudonym: under which its receipt stands; empty where none is asked for.
    """

    key: VerifyKey
    pseudonym: str = ""


@dataclass(frozen=True, slots=True)
class Heard:
    """What has come of one device whose answer is not whole.

    Attributes:
        missing: parts that have not come, ascending; all of them where nothing could be kept.
        last_s: when the last part came, on the collector's clock.
        num_parts: of an answer.
    """

    missing: tuple[int, ...]
    last_s: float
    num_parts: int


@dataclass(slots=True)
class _Incoming:
    joining: Joining | None = None
    num_parts: int = 0
    num_tries: int = 0
    last_s: float = 0.0


@dataclass(slots=True, kw_only=True)
class Collection:
    """The answers to one step.

    Attributes:
        step: that was offered.
        form: of an answer.
        invited: devices that were offered it.
        opening_key: of the gateway.
        is_possible: whether one honest device can have sent a vector: the bound on its norm.
        total: of the good answers, int64, shape (form.num_entries,).
        receipts: of the devices in it, by device.
        answered: devices in it.
        tally: parts and answers that count as nothing, by reason.
    """

    step: Step
    form: ContributionForm
    invited: Mapping[str, Invited]
    opening_key: OpeningKey
    is_possible: Callable[[NDArray[np.int64]], bool]
    total: NDArray[np.int64] = field(init=False)
    receipts: dict[str, str] = field(init=False, default_factory=dict)
    answered: set[str] = field(init=False, default_factory=set)
    tally: Counter[str] = field(init=False, default_factory=Counter)
    _incoming: dict[str, _Incoming] = field(init=False, default_factory=dict)
    _tag: bytes = field(init=False)

    def __post_init__(self) -> None:
        """Begin with the sum of nothing."""
        self.total = np.zeros(self.form.num_entries, np.int64)
        self._tag = self.step.tag

    @property
    def is_complete(self) -> bool:
        """Whether all devices that were invited have answered."""
        return len(self.answered) == len(self.invited)

    def heard(self) -> dict[str, Heard]:
        """Return what has come of devices that began to answer and are not done."""
        everything = tuple(range(self.form.num_parts))
        return {
            device: Heard(
                everything if one.joining is None else one.joining.missing,
                one.last_s,
                self.form.num_parts,
            )
            for device, one in self._incoming.items()
            if one.num_tries < MOST_TRIES
        }

    def take(self, device: str, payload: bytes, *, now_s: float) -> bool:
        """Take what came on a device's topic, and tell whether the device is done now.

        Args:
            device: whose topic it was.
            payload: as it came; anybody may have made it.
            now_s: on a clock that never jumps.
        """
        try:
            whole = self._whole(device, read_part(payload), now_s)
            if whole is None:
                return False
            self._add(device, self._opened(device, whole))
        except WireError as error:
            self.tally[error.reason] += 1
            return False
        return True

    def _whole(self, device: str, part: Part, now_s: float) -> bytes | None:
        if device not in self.invited:
            raise WireError(NOT_INVITED, device)
        if part.tag != self._tag:
            raise WireError(OTHER_STEP, "late, or of a step that was not offered")
        if device in self.answered:
            raise WireError(DUPLICATE, "the device has answered")
        one = self._incoming.setdefault(device, _Incoming())
        one.num_parts += 1
        if one.num_tries >= MOST_TRIES:
            raise WireError(TOO_MANY_TRIES, f"{one.num_tries} answers were none")
        if one.num_parts > MOST_PARTS_OVER * self.form.num_parts:
            raise WireError(TOO_MANY_PARTS, f"{one.num_parts} parts")
        one.last_s = now_s
        if one.joining is None or one.joining.digest != part.digest:
            one.joining = Joining(part.digest, self.form.sealed_bytes)
        return one.joining.add(part)

    def _opened(self, device: str, whole: bytes) -> Answer:
        one = self._incoming[device]
        one.joining = None
        one.num_tries += 1
        answer = open_contribution(
            whole,
            step=self.step,
            form=self.form,
            device=device,
            key=self.invited[device].key,
            opening_key=self.opening_key,
        )
        if not self.is_possible(answer.values):
            raise WireError(BEYOND_BOUND, "no device that clips sends so much")
        self._require_own_receipt(device, answer.receipt)
        return answer

    def _require_own_receipt(self, device: str, line: str) -> None:
        """Refuse an answer whose receipt is none, or speaks for another device."""
        pseudonym = self.invited[device].pseudonym
        if not pseudonym:
            return
        try:
            receipt = DeviceReceipt.from_line(line)
        except (ValueError, TypeError, ArithmeticError, RecursionError):
            raise WireError(BAD_RECEIPT, "no receipt of a ledger") from None
        if receipt.pseudonym != pseudonym:
            raise WireError(FOREIGN_RECEIPT, "the receipt is another device's")

    def _add(self, device: str, answer: Answer) -> None:
        self.total += answer.values
        self.answered.add(device)
        del self._incoming[device]
        if self.invited[device].pseudonym:
            self.receipts[device] = answer.receipt
