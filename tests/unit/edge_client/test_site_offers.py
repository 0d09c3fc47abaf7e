"""What becomes of what a gateway says: every refusal by its reason, and nothing but the present."""

from dataclasses import replace
from datetime import timedelta

import pytest

from edge_client.errors import NoticeRefusedError
from edge_client.site_rounds.kept_step import Ending, KeptStep, StepState
from edge_client.site_rounds.offers import (
    Todo,
    after_release,
    judge_offer,
    parts_to_send_again,
    without_waiting,
)
from edge_client.site_rounds.time_left import Moment, seconds_left
from models.telemetry import DeviceId
from models.wire.codec import canonical_json
from models.wire.contribution import StepKind
from models.wire.site_grant import DeviceGrant
from models.wire.site_rounds import CountOffer, MissingParts, RoundOffer, StepRelease
from tests.support.edge_devices import NOW
from tests.support.training_tasks import task_of

GRANT = DeviceGrant(
    device=DeviceId("device-1"),
    gateway=DeviceId("gateway-1"),
    issued=NOW,
    not_after=NOW + timedelta(days=30),
    verify_key="a" * 64,
    seal_key="b" * 64,
)
OFFER = RoundOffer(
    grant="shown",
    device="device-1",
    material="d" * 64,
    material_bytes=12_000,
    deadline_s=60,
    task=task_of(policy=""),
)
THEN = Moment(boot="b1", elapsed_s=1_000.0, wall_s=5e8)
NEW = KeptStep(offer=OFFER, gateway="gateway-1", seal_key="b" * 64, granted=NOW, received=THEN)
PARTS = (b"one", b"two", b"three")


def later(seconds, *, boot="b1", wall_s=5e8):
    return Moment(boot=boot, elapsed_s=THEN.elapsed_s + seconds, wall_s=wall_s)


def judged(offer=OFFER, grant=GRANT, **facts):
    usual = {"kept": None, "agrees": True, "is_stopped": False, "now": later(5)}
    return judge_offer(offer, grant, **(usual | facts))


def missing(*parts, offer=OFFER):
    tag = offer.step("gateway-1").tag.hex()
    return MissingParts(grant="shown", device="device-1", tag=tag, parts=parts)


def test_a_first_offer_is_answered_and_counts_from_its_receipt():
    todo, step = judged()
    assert todo is Todo.ANSWER
    assert step == replace(NEW, received=later(5))
    assert step.left_s(later(25)) == 40.0


@pytest.mark.parametrize(
    ("facts", "reason"), [({"agrees": False}, "no_consent"), ({"is_stopped": True}, "stopped")]
)
def test_an_offer_against_the_owners_or_the_servers_word_is_left_in_silence(facts, reason):
    with pytest.raises(NoticeRefusedError) as refused:
        judged(**facts)
    assert refused.value.reason == reason


@pytest.mark.parametrize("state", [NEW, NEW.answered(PARTS), NEW.closed(Ending.RELEASED)])
def test_a_gateway_that_the_server_signed_before_the_one_at_hand_is_not_answered(state):
    earlier = replace(GRANT, gateway=DeviceId("gateway-0"), issued=NOW - timedelta(days=1))
    later_one = replace(GRANT, gateway=DeviceId("gateway-2"), issued=NOW + timedelta(days=1))

    with pytest.raises(NoticeRefusedError) as refused:
        judged(grant=earlier, kept=state)
    assert refused.value.reason == "superseded"
    todo, step = judged(grant=later_one, kept=state)
    assert (todo, step.gateway, step.granted) == (Todo.ANSWER, "gateway-2", later_one.issued)


def test_an_answered_step_that_is_offered_again_brings_the_same_bytes_and_no_more_time():
    answered = NEW.answered(PARTS)
    assert judged(kept=answered) == (Todo.SEND_AGAIN, answered)
    # Over, released, or of another gateway's life: then it is a step of its own.
    for kept in (
        answered.closed(Ending.RELEASED),
        replace(answered, received=later(-100)),
        replace(answered, seal_key="e" * 64),
        replace(answered, gateway="gateway-2"),
    ):
        assert judged(kept=kept) == (Todo.ANSWER, replace(NEW, received=later(5)))


@pytest.mark.parametrize(
    "changes",
    [
        {"task": task_of(index=1, policy="")},
        {"task": task_of(stream="t", policy="")},
        {"material": "e" * 64},
    ],
)
def test_any_other_step_takes_the_place_of_the_one_before(changes):
    offer = replace(OFFER, **changes)
    todo, step = judged(offer, kept=NEW.answered(PARTS))
    assert (todo, step.offer, step.parts) == (Todo.ANSWER, offer, ())


def test_an_earlier_step_of_the_stream_at_hand_is_a_replay_and_leaves_it_alone():
    third = replace(NEW, offer=replace(OFFER, task=task_of(index=3, policy="")))
    for kept in (third, third.answered(PARTS), third.closed(Ending.RELEASED)):
        with pytest.raises(NoticeRefusedError) as refused:
            judged(replace(OFFER, task=task_of(index=2, policy="")), kept=kept)
        assert refused.value.reason == "replayed"
    # Counts and other streams have numbers of their own.
    for offer in (replace(COUNT, index=0), replace(OFFER, task=task_of(stream="t", policy=""))):
        assert judged(offer, kept=third).todo is Todo.ANSWER
    # Those of one channel begin anew with each policy.
    assert judged(replace(COUNT, index=0), kept=replace(NEW, offer=COUNT)).todo is Todo.ANSWER


def test_missing_parts_are_those_of_the_answer_at_hand():
    answered = NEW.answered(PARTS)
    facts = {"agrees": True, "now": later(5)}
    assert parts_to_send_again(missing(0, 2), GRANT, kept=answered, **facts) == (0, 2)
    assert parts_to_send_again(missing(), GRANT, kept=answered, **facts) == (0, 1, 2)
    assert parts_to_send_again(missing(0), GRANT, kept=NEW, **facts) == ()


@pytest.mark.parametrize(
    ("question", "kept", "facts", "reason"),
    [
        (missing(0), NEW.answered(PARTS), {"agrees": False}, "no_consent"),
        (missing(0), None, {}, "foreign_step"),
        (missing(0), NEW.answered(PARTS).closed(Ending.RELEASED), {}, "foreign_step"),
        (missing(0), replace(NEW.answered(PARTS), gateway="gateway-2"), {}, "foreign_step"),
        (missing(0, offer=replace(OFFER, material="e" * 64)), NEW, {}, "foreign_step"),
        (missing(0), NEW.answered(PARTS), {"now": later(60)}, "over"),
        (missing(1, 3), NEW.answered(PARTS), {}, "foreign_part"),
    ],
)
def test_questions_for_parts_are_refused_by_reason(question, kept, facts, reason):
    with pytest.raises(NoticeRefusedError) as refused:
        parts_to_send_again(
            question, GRANT, kept=kept, **({"agrees": True, "now": later(5)} | facts)
        )
    assert refused.value.reason == reason


def test_release_of_the_step_at_hand_closes_it_and_lets_its_answer_go():
    released = StepRelease(
        grant="shown",
        device="device-1",
        stream=OFFER.task.stream,
        index=OFFER.task.index,
        entry="e",
    )
    closed = after_release(released, GRANT, kept=NEW.answered(PARTS))
    assert (closed.state, closed.ending, closed.parts) == (StepState.CLOSED, Ending.RELEASED, ())
    assert after_release(replace(released, index=7), GRANT, kept=NEW) is None
    assert after_release(released, GRANT, kept=closed) is None
    assert after_release(released, GRANT, kept=None) is None
    assert after_release(released, GRANT, kept=replace(NEW, gateway="gateway-2")) is None


def test_counts_close_with_no_release_of_a_step_of_that_name_and_number():
    counted = replace(NEW, offer=COUNT)
    released = StepRelease(grant="shown", device="device-1", stream="metrics", index=3, entry="e")
    assert after_release(released, GRANT, kept=counted) is None


COUNT = CountOffer(
    grant="shown",
    device="device-1",
    material="d" * 64,
    material_bytes=900,
    deadline_s=60,
    channel="metrics",
    index=3,
    cohort_size=100,
)


@pytest.mark.parametrize(
    ("step", "facts", "ending"),
    [
        (NEW, {}, None),
        (NEW, {"agrees": False}, Ending.NO_CONSENT),
        (NEW, {"now": later(61)}, Ending.NO_MATERIAL),
        (NEW.answered(PARTS), {"now": later(61)}, Ending.OVER),
        (NEW.closed(Ending.RELEASED), {"agrees": False}, Ending.RELEASED),
    ],
)
def test_open_step_ends_with_its_time_or_the_owners_word(step, facts, ending):
    usual = {"agrees": True, "now": later(5), "why_late": Ending.NO_MATERIAL}
    assert without_waiting(step, **(usual | facts)).ending is ending


@pytest.mark.parametrize(
    ("now", "left_s"),
    [
        (later(0), 60.0),
        (later(59), 1.0),
        (later(60), 0.0),
        # The machine goes on: its time may say anything.
        (later(10, wall_s=0.0), 50.0),
        (later(10, wall_s=9e9), 50.0),
        # It was started again: its time is all there is, and one before the receipt tells nothing.
        (later(-900, boot="b2", wall_s=5e8 + 20), 40.0),
        (later(-900, boot="b2", wall_s=5e8 + 90), 0.0),
        (later(-900, boot="b2", wall_s=5e8 - 1), 0.0),
        (later(10, boot="", wall_s=5e8 + 30), 30.0),
    ],
)
def test_time_is_left_from_the_receipt_on(now, left_s):
    assert seconds_left(THEN, 60.0, now=now) == left_s


@pytest.mark.parametrize(
    "step",
    [
        NEW,
        NEW.answered((b"\0" * 4096, b"\xff")),
        NEW.closed(Ending.FAILED),
        replace(NEW, offer=COUNT),
    ],
)
def test_what_is_kept_of_a_step_is_read_as_it_was(step):
    plain = step.to_plain()
    assert canonical_json(plain)
    assert KeptStep.from_plain(plain) == step


def test_an_answer_has_room_whatever_is_asked():
    assert (NEW.most_parts, replace(NEW, offer=COUNT).most_parts) == (4, 2)
    assert replace(NEW, offer=COUNT).step.kind is StepKind.COUNT
