"""What a device decides of a task, what it debits, and what it tells of it."""

import json
from collections import deque
from dataclasses import replace
from datetime import timedelta

import pytest

from edge_client.errors import LedgerError, ParticipationRefusedError
from edge_client.privacy.ledger_file import DeviceLedger, read_device_ledger
from edge_client.privacy.participation import (
    RECEIPT_CHARACTERS,
    Terms,
    admit,
    debit,
    debit_count,
    receipt_line,
)
from edge_client.store.erasure import ledger_path, tombstone_path
from models.wire.envelope import SigningKey
from models.wire.rounds import DeviceReceipt, LocalRecipe
from privacy import CountAnswer, CountChannel, Participation, RecordLevelSteps
from privacy.accountant import device_epsilon, mu_of_device
from privacy.budget import OwnLimits
from tests.support.edge_devices import NOW
from tests.support.stream_policies import stream_policy
from tests.support.training_tasks import (
    KEYS,
    POLICY,
    PSEUDONYM,
    TERMS,
    agreeing_store,
    signed,
    signed_json,
    task_of,
)

OTHER_KEY = SigningKey.from_bytes(bytes(32))


@pytest.fixture
def store(tmp_path):
    with agreeing_store(tmp_path) as opened:
        yield opened


def take_part(store, task, *, terms=TERMS, now=NOW):
    return debit(store, admit(store, task, terms=terms, now=now), terms=terms, now=now)


def refusal_of(store, task, *, terms=TERMS):
    before = ledger_path(store.path).read_bytes()
    with pytest.raises((ParticipationRefusedError, LedgerError)) as caught:
        take_part(store, task, terms=terms)
    assert ledger_path(store.path).read_bytes() == before
    return caught.value.refusal


def test_participation_is_in_the_ledger_with_the_promise_it_was_made_under(store):
    ledger = take_part(store, task_of())
    participation, steps = ledger.events
    assert participation == Participation(
        stream="s",
        index=0,
        noise_multiplier=POLICY.privacy.noise_multiplier,
        clipping_norm=0.3,
        cohort_size=100,
        policy_digest=POLICY.digest,
        epsilon=2.0,
        delta=1e-8,
        update_share=0.85,
        max_participations=3,
    )
    assert steps == RecordLevelSteps(
        noise_multiplier=1.0, max_grad_norm=1.0, sampling_rate=0.1, steps=5
    )
    assert read_device_ledger(store.path, store) == ledger
    assert {entry.kind for entry in ledger.entries} == {"stream"}


def test_training_without_noise_on_rows_leaves_no_entry_of_such_steps(store):
    policy = replace(POLICY, record=replace(POLICY.record, noise_multiplier=0.0))
    (event,) = take_part(store, task_of(policy)).events
    assert isinstance(event, Participation)


@pytest.mark.parametrize(
    ("task", "refusal"),
    [
        (task_of(policy=""), "policy_missing"),
        (task_of(policy="{}"), "policy_not_signed"),
        (task_of(policy=signed(POLICY, key=OTHER_KEY)), "policy_key_unknown"),
        (task_of(policy=signed(POLICY).replace('"sig":"', '"sig":"A')), "policy_not_signed"),
        (task_of(policy=signed_json({"stream": "s"})), "policy_unreadable"),
        (task_of(policy=signed_json([])), "policy_unreadable"),
        (task_of(policy=signed_json(POLICY.to_json() | {"more": 1})), "policy_unreadable"),
        (task_of(clipping_norm=0.2), "task_differs"),
        (task_of(clipping_norm=0.31), "task_differs"),
        (task_of(cohort_size=101), "task_differs"),
        (task_of(stream="t"), "task_differs"),
        (task_of(recipe=LocalRecipe()), "task_differs"),
        (task_of(index=POLICY.num_rounds), "stream_ended"),
    ],
)
def test_task_is_refused_unless_it_is_what_the_signed_policy_says(store, task, refusal):
    assert refusal_of(store, task) == refusal


def test_policy_whose_bands_reach_beyond_the_separation_is_refused_by_name(store):
    value = POLICY.to_json()
    value["privacy"]["bands"] = 3
    assert refusal_of(store, task_of(policy=signed_json(value))) == "too_many_bands"


def test_policy_that_promises_more_than_its_noise_keeps_is_refused(store):
    value = POLICY.to_json()
    value["privacy"]["noise_multiplier"] *= 0.9
    assert refusal_of(store, task_of(policy=signed_json(value))) == "policy_unreadable"


def test_smaller_cohort_than_the_least_is_refused(store):
    policy = replace(POLICY, privacy=replace(POLICY.privacy, min_cohort_size=100))
    assert refusal_of(store, task_of(policy, cohort_size=99)) == "cohort_too_small"


@pytest.mark.parametrize(
    ("index", "refusal"), [(4, "index_used"), (3, "index_used"), (5, "too_soon")]
)
def test_step_that_was_answered_or_lies_too_near_is_refused(store, index, refusal):
    take_part(store, task_of(index=4))
    assert refusal_of(store, task_of(index=index)) == refusal


def test_device_retires_after_k_participations_in_whatever_streams(store):
    take_part(store, task_of(index=0))
    take_part(store, task_of(index=2))
    take_part(store, task_of(stream_policy(stream="t", participations=24), index=0))
    more = stream_policy(stream="u", participations=24)
    assert refusal_of(store, task_of(more, index=50)) == "retired"
    assert refusal_of(store, task_of(index=4)) == "retired"


def test_least_budget_of_all_policies_limits_a_device(store):
    strict = stream_policy(stream="strict", participations=24, epsilon=0.5)
    take_part(store, task_of(strict, index=0))
    generous = stream_policy(stream="generous", participations=3, epsilon=8.0)
    assert refusal_of(store, task_of(generous, index=0)) == "budget_spent"


def test_stream_that_changes_a_constant_under_one_name_is_refused(store):
    take_part(store, task_of(index=0))
    falling = stream_policy(participations=3, separation=2, clipping_norm=0.2)
    assert refusal_of(store, task_of(falling, index=4)) == "policy_changed"


@pytest.mark.parametrize(
    "own", [OwnLimits(max_participations=1), OwnLimits(max_epsilon=1.3)], ids=["often", "epsilon"]
)
def test_own_limit_stops_before_the_policy_does(store, own):
    terms = Terms(policy_keys=KEYS, own=own)
    take_part(store, task_of(index=0), terms=terms)
    assert refusal_of(store, task_of(index=2), terms=terms) == "own_limit"
    take_part(store, task_of(index=2))


def test_own_limit_on_epsilon_stops_counts_too(store):
    terms = Terms(policy_keys=KEYS, own=OwnLimits(max_epsilon=0.3))
    asking = replace(
        POLICY, channels=(CountChannel(name="c", noise_multiplier=30.0, max_answers=9),)
    )

    def answers(index):
        return debit_count(
            store, policy=signed(asking), channel="c", index=index, terms=terms, now=NOW
        )

    with pytest.raises(ParticipationRefusedError) as caught:
        deque(map(answers, range(9)))
    assert caught.value.refusal == "own_limit"
    events = read_device_ledger(store.path, store).events
    assert 0 < len(events) < 9
    assert device_epsilon(events, delta=1e-8) <= 0.3
    assert refusal_of(store, task_of(asking), terms=terms) == "own_limit"


def test_own_limit_does_not_widen_with_the_delta_of_a_policy(store):
    terms = Terms(policy_keys=KEYS, own=OwnLimits(max_epsilon=1.0))
    lax = stream_policy(stream="lax", epsilon=1.0, delta=1e-5, participations=3, separation=2)
    take_part(store, task_of(lax, index=0), terms=terms)
    assert refusal_of(store, task_of(lax, index=2), terms=terms) == "own_limit"
    assert device_epsilon(read_device_ledger(store.path, store).events, delta=1e-8) <= 1.0


def test_own_least_cohort_holds_for_steps_and_counts(store):
    terms = Terms(policy_keys=KEYS, own=OwnLimits(min_cohort_size=101))
    asking = replace(
        POLICY, channels=(CountChannel(name="c", noise_multiplier=30.0, max_answers=1),)
    )
    assert refusal_of(store, task_of(asking), terms=terms) == "own_limit"
    with pytest.raises(ParticipationRefusedError, match="own_limit"):
        debit_count(store, policy=signed(asking), channel="c", index=0, terms=terms, now=NOW)
    take_part(store, task_of(replace(asking, cohort_size=101)), terms=terms)


def test_policy_that_promises_nothing_too_often_is_refused(store):
    value = POLICY.to_json()
    value["privacy"] |= {"delta": 0.49, "epsilon": 0.5, "noise_multiplier": 40.0}
    assert refusal_of(store, task_of(policy=signed_json(value))) == "delta_too_great"


def test_erased_device_never_takes_part_again(store):
    tombstone_path(store.path).write_text("not even readable")
    assert refusal_of(store, task_of()) == "erased"


def test_who_was_slower_finds_the_step_taken_when_debiting(store):
    first = admit(store, task_of(), terms=TERMS, now=NOW)
    second = admit(store, task_of(), terms=TERMS, now=NOW)
    debit(store, first, terms=TERMS, now=NOW)
    with pytest.raises(ParticipationRefusedError) as caught:
        debit(store, second, terms=TERMS, now=NOW)
    assert caught.value.refusal == "index_used"


def test_receipt_says_what_the_ledger_holds(store):
    ledger = take_part(store, task_of())
    receipt = DeviceReceipt.from_line(receipt_line(ledger, pseudonym=PSEUDONYM))
    assert (receipt.pseudonym, receipt.participations) == (PSEUDONYM, 1)
    assert receipt.head == ledger.entries[-1].hash
    assert receipt.mu_squared == pytest.approx(POLICY.privacy.noise_multiplier**-2)


def test_receipts_have_one_length_whatever_the_ledger_holds(store):
    ledgers = [DeviceLedger(), take_part(store, task_of())]
    ledgers += [take_part(store, task_of(index=2)), read_device_ledger(store.path, store)]
    # The longest figures: a life of participations, and seventeen digits with an exponent.
    longest = DeviceReceipt(
        pseudonym=PSEUDONYM, participations=10**9, mu_squared=1.2345678901234567e-100, head="f" * 64
    )
    assert len(longest.to_line()) <= RECEIPT_CHARACTERS
    lines = [receipt_line(ledger, pseudonym=PSEUDONYM) for ledger in ledgers]
    assert {len(line.encode()) for line in lines} == {RECEIPT_CHARACTERS}
    assert [DeviceReceipt.from_line(line).participations for line in lines] == [0, 1, 2, 2]


CHANNELS = (
    CountChannel(name="metrics", noise_multiplier=30.0, max_answers=2),
    CountChannel(name="held-out", noise_multiplier=12.0, max_answers=1, held_out=True),
)
COUNTING = replace(POLICY, channels=CHANNELS)


def count(store, channel, index, *, policy=COUNTING):
    return debit_count(
        store, policy=signed(policy), channel=channel, index=index, terms=TERMS, now=NOW
    )


def test_answer_to_a_count_is_debited_from_a_budget_of_its_own(store):
    assert count(store, "metrics", 3) == CHANNELS[0]
    (event,) = read_device_ledger(store.path, store).events
    assert event == CountAnswer(
        channel="metrics",
        index=3,
        noise_multiplier=30.0,
        policy_digest=COUNTING.digest,
        epsilon=2.0,
        delta=1e-8,
        update_share=0.85,
    )
    for index in (0, 2, 4):
        ledger = take_part(store, task_of(COUNTING, index=index))
    assert mu_of_device(ledger.events) ** 2 <= COUNTING.privacy.mu_squared_in_all


@pytest.mark.parametrize(
    ("answered", "channel", "index", "refusal"),
    [
        ([], "unknown", 0, "channel_unknown"),
        ([2], "metrics", 2, "index_used"),
        ([2], "metrics", 1, "index_used"),
        ([0, 1], "metrics", 2, "retired"),
        ([0], "held-out", 0, "not_held_out"),
    ],
)
def test_answer_is_refused_as_the_policy_says(store, answered, channel, index, refusal):
    for one in answered:
        count(store, "metrics", one)
    before = ledger_path(store.path).read_bytes()
    with pytest.raises(ParticipationRefusedError) as caught:
        count(store, channel, index)
    assert caught.value.refusal == refusal
    assert ledger_path(store.path).read_bytes() == before


def test_counts_of_several_policies_share_the_least_budget(store):
    count(store, "metrics", 0)
    count(store, "metrics", 1)
    dear = CountChannel(name="metrics", noise_multiplier=7.0, max_answers=1)
    with pytest.raises(ParticipationRefusedError) as caught:
        count(store, "metrics", 0, policy=replace(POLICY, stream="t", channels=(dear,)))
    assert caught.value.refusal == "budget_spent"


def test_held_out_device_spends_everything_on_counts_and_never_trains(store):
    count(store, "held-out", 0)
    assert refusal_of(store, task_of(COUNTING)) == "held_out"
    with pytest.raises(ParticipationRefusedError) as caught:
        count(store, "metrics", 0)
    assert caught.value.refusal == "held_out"


def test_ledgers_lines_are_json_that_an_owner_can_read(store):
    take_part(store, task_of(), now=NOW + timedelta(minutes=1))
    first = json.loads(ledger_path(store.path).read_text().splitlines()[0])
    assert first["event"]["type"] == "participation"
    assert first["at"] == "2026-06-01T12:01:00+00:00"
