"""What becomes of what a gateway says: which offers are taken, what is sent again. No IO.

Who speaks was decided before: the server signed that this gateway may ask this device, and the
gateway the message. Policy and privacy ledger decide later, where the update is made; what they
refuse is answered with zeros. Silence is kept where the owner does not agree: then nothing leaves
at all.
"""

from __future__ import annotations

from enum import Enum, auto
from typing import TYPE_CHECKING, NamedTuple

from models.wire.contribution import StepKind

from ..errors import NoticeRefusedError
from .kept_step import Ending, KeptStep, StepState

if TYPE_CHECKING:
    from models.wire.site_grant import DeviceGrant
    from models.wire.site_rounds import CountOffer, MissingParts, RoundOffer, StepRelease

    from .time_left import Moment


class Todo(Enum):
    """What an offer has the device do."""

    ANSWER = auto()
    SEND_AGAIN = auto()


class Judged(NamedTuple):
    """What becomes of an offer.

    Attributes:
        todo: what to do.
        step: to keep.
    """

    todo: Todo
    step: KeptStep


def judge_offer(
    offer: RoundOffer | CountOffer,
    grant: DeviceGrant,
    *,
    kept: KeptStep | None,
    agrees: bool,
    is_stopped: bool,
    now: Moment,
) -> Judged:
    """Decide on a genuine offer to this device.

    An offer of the step that is at hand counts from now on, as the gateway says anew how much time
    is left. One of a step that was answered brings the same bytes once more, and they are kept no
    longer than they would have been. Any other is a step of its own: whether it was ever answered
    is for the ledger to say.

    Args:
        offer: what the gateway asks.
        grant: by which the gateway may ask.
        kept: the step before.
        agrees: whether the owner agrees to training.
        is_stopped: whether the server's configuration has stopped it.
        now: the present.

    Raises:
        NoticeRefusedError: `no_consent`, `stopped`, `superseded`: the server has signed another
            grant since, which the device has heard, or `replayed`: an earlier step of the stream
            than the one at hand. Nothing is answered, and nothing kept.
    """
    if not agrees:
        raise NoticeRefusedError("no_consent", "the owner has not agreed to training")
    if is_stopped:
        raise NoticeRefusedError("stopped", "the server's configuration has stopped training")
    fresh = KeptStep(
        offer=offer,
        gateway=grant.gateway,
        seal_key=grant.seal_key,
        granted=grant.issued,
        received=now,
    )
    if kept is not None and grant.issued < kept.granted:
        what = f"granted {grant.issued.isoformat()}, and anew {kept.granted.isoformat()}"
        raise NoticeRefusedError("superseded", what)
    if kept is not None and _comes_before(fresh, kept):
        what = f"step {fresh.step.index} of {fresh.step.stream} after step {kept.step.index}"
        raise NoticeRefusedError("replayed", what)
    if kept is None or kept.step.tag != fresh.step.tag or kept.seal_key != fresh.seal_key:
        return Judged(Todo.ANSWER, fresh)
    if kept.state is StepState.ANSWERED and kept.left_s(now) > 0:
        return Judged(Todo.SEND_AGAIN, kept)
    return Judged(Todo.ANSWER, fresh)


def parts_to_send_again(
    message: MissingParts,
    grant: DeviceGrant,
    *,
    kept: KeptStep | None,
    agrees: bool,
    now: Moment,
) -> tuple[int, ...]:
    """Decide which parts of an answer leave once more.

    Returns:
        Their numbers; none while the answer is still being made, which sends them all.

    Raises:
        NoticeRefusedError: `no_consent`, `foreign_step`: of another step or gateway than the one
            at hand, `over`, or `foreign_part`: there is none of that number.
    """
    if not agrees:
        raise NoticeRefusedError("no_consent", "the owner has not agreed to training")
    if (
        kept is None
        or kept.gateway != grant.gateway
        or kept.step.tag.hex() != message.tag
        or kept.state is StepState.CLOSED
    ):
        raise NoticeRefusedError("foreign_step", f"nothing is kept for {message.tag}")
    if kept.left_s(now) <= 0:
        raise NoticeRefusedError("over", f"step {kept.step.index} of {kept.step.stream} is over")
    if kept.state is StepState.OFFERED:
        return ()
    if message.parts and message.parts[-1] >= len(kept.parts):
        what = f"part {message.parts[-1]} of {len(kept.parts)}"
        raise NoticeRefusedError("foreign_part", what)
    return message.parts or tuple(range(len(kept.parts)))


def after_release(
    message: StepRelease, grant: DeviceGrant, *, kept: KeptStep | None
) -> KeptStep | None:
    """Return the step at hand, closed by its release; None where another one was released."""
    if kept is None or kept.state is StepState.CLOSED:
        return None
    step = kept.step
    released = (StepKind.UPDATE, grant.gateway, message.stream, message.index)
    if (step.kind, step.gateway, step.stream, step.index) != released:
        return None
    return kept.closed(Ending.RELEASED)


def without_waiting(step: KeptStep, *, agrees: bool, now: Moment, why_late: Ending) -> KeptStep:
    """Return an open step, closed where it is over or its owner does not agree any more.

    Args:
        step: as it stands.
        agrees: whether training is agreed to, and not stopped.
        now: the present.
        why_late: what kept it from being answered in time.
    """
    if step.state is StepState.CLOSED:
        return step
    if not agrees:
        return step.closed(Ending.NO_CONSENT)
    if step.left_s(now) > 0:
        return step
    return step.closed(Ending.OVER if step.state is StepState.ANSWERED else why_late)


def _comes_before(fresh: KeptStep, kept: KeptStep) -> bool:
    """Tell whether a step is an earlier one of the stream that is at hand: nobody goes back.

    Counts of one channel begin anew with each policy, and are for the ledger to judge.
    """
    asked, known = fresh.step, kept.step
    series = (StepKind.UPDATE, asked.stream)
    return (asked.kind, asked.stream) == series == (known.kind, known.stream) and (
        asked.index < known.index
    )
