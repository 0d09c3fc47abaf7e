"""A device behind a gateway: what is offered over a real broker is answered once, and sealed."""

from dataclasses import replace
from datetime import timedelta

import pytest

from edge_client.privacy.ledger_file import read_device_ledger
from edge_client.privacy.receipts import read_receipts
from edge_client.site_rounds.kept_step import Ending, StepState
from edge_client.store.mailbox import Mailbox, Purpose
from edge_client.telemetry_store import TelemetryStore
from models.feature_spec import FEATURE_NAMES
from models.wire.counts import Bins, CountKind, CountQuestion
from models.wire.envelope import SigningKey, sign_payload
from models.wire.round_material import RoundMaterial
from models.wire.rounds import DeviceReceipt
from models.wire.site_rounds import signed_by_gateway
from models.wire.topics import Down, down
from privacy import CountChannel
from tests.support.brokers import mosquitto_in, wait_until
from tests.support.edge_devices import NOW
from tests.support.line_bundle import write_line_bundle
from tests.support.site_devices import (
    POLICY,
    WEIGHTS,
    SiteAgent,
    SiteDriver,
    debited,
    site_store,
    step_of,
)
from tests.support.stream_policies import stream_policy
from tests.support.training_tasks import signed, task_of

pytestmark = pytest.mark.broker

ONCE = replace(stream_policy(participations=1, separation=1, cohort_size=100), record=POLICY.record)

DRIFT = CountChannel(name="drift", noise_multiplier=60.0, max_answers=9)
QUESTION = CountQuestion(
    kind=CountKind.DRIFT,
    as_of_s=int(NOW.timestamp()) // 86_400 * 86_400,
    bins=tuple(Bins(name, (0.0, 1.0)) for name in FEATURE_NAMES[:3]),
)


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    return write_line_bundle(tmp_path_factory.mktemp("bundle") / "line.zip")


@pytest.fixture(scope="module")
def broker(tmp_path_factory):
    with mosquitto_in(tmp_path_factory.mktemp("site")) as running:
        yield running


@pytest.fixture
def driver(broker):
    with SiteDriver(broker) as driver:
        yield driver
        for number in range(8):
            driver.link.publish(f"fedcell/v1/gateway/gateway-1/weights/{number}", b"", retain=True)


@pytest.fixture
def path(tmp_path):
    return site_store(tmp_path / "device")


def state_of(path):
    kept = step_of(path)
    return None if kept is None else kept.state


def ending_of(path):
    kept = step_of(path)
    return None if kept is None else kept.ending


def is_told(path):
    """What waits to be confirmed is on its way, and is not put out a second time."""
    with Mailbox(path) as mailbox:
        return not mailbox.outbox()


def test_an_offered_step_is_debited_answered_and_sealed_to_the_gateway(
    path, bundle, broker, driver
):
    driver.broadcast()
    with SiteAgent(path, bundle, broker) as agent:
        offer = driver.offer()
        answer = driver.wait_for_answer(offer, path)
        driver.release(offer)
        assert wait_until(lambda: read_receipts(path))

    assert answer.values.any()
    said = DeviceReceipt.from_line(answer.receipt)
    assert (said.pseudonym, said.participations) == (offer.task.pseudonyms[0], 1)
    assert debited(path) == [0]
    assert [receipt["state"] for receipt in read_receipts(path)] == ["matches"]
    kept = step_of(path)
    assert (kept.state, kept.ending, kept.parts) == (StepState.CLOSED, Ending.RELEASED, ())
    assert agent.refused == {}


def test_whatever_comes_twice_is_answered_with_the_same_bytes_and_after_its_release_with_zeros(
    path, bundle, broker, driver
):
    with SiteAgent(path, bundle, broker):
        offer = driver.offer()
        driver.offer()
        driver.broadcast()
        first = driver.wait_for_answer(offer, path)
        once = driver.parts_of(offer)
        assert wait_until(lambda: is_told(path))
        driver.offer()
        assert wait_until(lambda: len(driver.parts_of(offer)) == 2 * len(once))
        assert driver.parts_of(offer) == once * 2

        driver.release(offer)
        assert wait_until(lambda: state_of(path) is StepState.CLOSED)
        driver.came.clear()
        driver.offer()
        again = driver.wait_for_answer(offer, path)

    assert first.values.any()
    assert not again.values.any()
    assert (again.values.shape, len(again.receipt)) == (first.values.shape, len(first.receipt))
    assert [len(part) for part in driver.parts_of(offer)] == [len(part) for part in once]
    assert debited(path) == [0]


def test_parts_of_the_material_may_come_in_any_order_late_and_mixed_with_those_of_another_step(
    path, bundle, broker, driver
):
    parts = driver.material.parts()
    older = RoundMaterial(weights=WEIGHTS + 1, policy=driver.material.policy)
    driver.broadcast(parts=older.parts())
    with SiteAgent(path, bundle, broker) as agent:
        offer = driver.offer()
        driver.broadcast(reversed(range(1, len(parts))))
        assert not wait_until(lambda: driver.parts_of(offer), 0.3)
        assert debited(path) == []
        driver.link.publish("fedcell/v1/gateway/gateway-1/weights/77", b"noise")
        driver.broadcast([0])
        assert driver.wait_for_answer(offer, path).values.any()
        heard_until_now = agent.agent._link.counters.bytes_in
        driver.broadcast()
        assert not wait_until(
            lambda: agent.agent._link.counters.bytes_in > heard_until_now, timeout_s=0.3
        )

    assert agent.refused == {"not_a_part": 1}


def test_missing_parts_come_once_more_byte_for_byte_and_only_those(path, bundle, broker, driver):
    driver.broadcast()
    with SiteAgent(path, bundle, broker) as agent:
        offer = driver.offer()
        driver.wait_for_answer(offer, path)
        parts = driver.parts_of(offer)
        assert wait_until(lambda: is_told(path))
        driver.came.clear()
        driver.ask_for_missing(offer, 1, 3)
        assert wait_until(lambda: len(driver.came) == 2)
        assert driver.parts_of(offer) == [parts[1], parts[3]]
        assert wait_until(lambda: is_told(path))
        driver.came.clear()
        driver.ask_for_missing(offer)
        assert wait_until(lambda: len(driver.came) == len(parts))
        assert driver.parts_of(offer) == parts

        other = driver.offer_of(index=1)
        driver.ask_for_missing(other, 0)
        driver.ask_for_missing(offer, len(parts))
        assert wait_until(lambda: agent.refused == {"foreign_step": 1, "foreign_part": 1})

        driver.offer(index=1)
        driver.wait_for_answer(other, path)
        driver.ask_for_missing(offer, 0)
        assert wait_until(lambda: agent.refused["foreign_step"] == 2)
    assert debited(path) == [0, 1]


def test_round_outlives_a_broker_that_is_killed_in_the_middle_and_forgets(path, bundle, tmp_path):
    with mosquitto_in(tmp_path) as broker, SiteDriver(broker) as driver:
        with SiteAgent(path, bundle, broker) as agent:
            offer = driver.offer()
            assert wait_until(lambda: step_of(path) is not None)
            broker.kill()
            broker.start()
            assert wait_until(lambda: agent.agent._link.is_connected and driver.link.is_connected)
            driver.broadcast()
            answer = driver.wait_for_answer(offer, path)
            parts = driver.parts_of(offer)
            broker.kill()
            broker.start()
            assert wait_until(lambda: agent.agent._link.is_connected and driver.link.is_connected)
            driver.ask_for_missing(offer)
            assert wait_until(lambda: len(driver.parts_of(offer)) == 2 * len(parts))
        assert driver.parts_of(offer) == parts * 2
    assert answer.values.any()
    assert debited(path) == [0]


def test_nothing_leaves_once_the_owner_withdraws_in_the_middle_of_a_round(
    path, bundle, broker, driver
):
    with SiteAgent(path, bundle, broker) as agent:
        offer = driver.offer()
        assert wait_until(lambda: step_of(path) is not None)
        with Mailbox(path) as mailbox:
            mailbox.set_consent(Purpose.TRAINING, granted=False, now=NOW)
        driver.broadcast()
        assert wait_until(lambda: ending_of(path) is Ending.NO_CONSENT)
        assert debited(path) == []

        with Mailbox(path) as mailbox:
            mailbox.set_consent(Purpose.TRAINING, granted=True, now=NOW)
        driver.offer()
        driver.wait_for_answer(offer, path)
        with Mailbox(path) as mailbox:
            mailbox.set_consent(Purpose.TRAINING, granted=False, now=NOW)
        assert wait_until(lambda: state_of(path) is StepState.CLOSED)
        driver.came.clear()
        driver.ask_for_missing(offer)
        driver.offer()
        assert wait_until(lambda: agent.refused == {"no_consent": 2})
    assert (driver.came, step_of(path).parts) == ([], ())
    assert debited(path) == [0]


def test_what_the_ledger_refuses_is_answered_with_zeros_of_the_same_form(
    path, bundle, broker, driver
):
    driver.material = RoundMaterial(weights=WEIGHTS, policy=signed(ONCE))
    driver.broadcast()
    answers, sizes = [], []
    with SiteAgent(path, bundle, broker):
        for index in (0, 1):
            task = task_of(ONCE, index=index, policy="")
            offer = driver.offer(task=task)
            answers.append(driver.wait_for_answer(offer, path))
            sizes.append([len(part) for part in driver.parts_of(offer)])

    assert [bool(answer.values.any()) for answer in answers] == [True, False]
    assert sizes[0] == sizes[1]
    taken = [DeviceReceipt.from_line(answer.receipt).participations for answer in answers]
    assert (taken, debited(path)) == ([1, 1], [0])


def test_device_without_bytes_left_for_a_whole_answer_debits_nothing_and_says_so(
    path, bundle, broker, driver
):
    driver.broadcast()
    with SiteAgent(path, bundle, broker, bytes_per_day=10_000):
        offer = driver.offer(deadline_s=1)
        assert wait_until(lambda: ending_of(path) is Ending.BUDGET_OF_BYTES)
    assert (driver.parts_of(offer), debited(path)) == ([], [])


@pytest.mark.parametrize("years", [-30, 30])
def test_clock_that_is_set_years_off_in_the_middle_of_a_step_does_not_end_it(
    path, bundle, broker, driver, years
):
    with SiteAgent(path, bundle, broker) as agent:
        offer = driver.offer(deadline_s=30)
        assert wait_until(lambda: state_of(path) is StepState.OFFERED)
        agent.now = NOW + timedelta(days=365 * years)
        driver.broadcast()
        driver.wait_for_answer(offer, path)
        assert state_of(path) is StepState.ANSWERED
    assert debited(path) == [0]


def test_step_is_over_so_many_seconds_after_its_receipt_whatever_the_clock_says(
    path, bundle, broker, driver
):
    agent = SiteAgent(path, bundle, broker, now=NOW - timedelta(days=10_000))
    with agent:
        late = driver.offer(deadline_s=1)
        assert wait_until(lambda: state_of(path) is StepState.OFFERED)
        assert wait_until(lambda: ending_of(path) is Ending.NO_MATERIAL)
        driver.broadcast()
        assert not wait_until(lambda: driver.came, timeout_s=0.2)
    assert (driver.parts_of(late), debited(path)) == ([], [])


def test_only_who_the_server_vouches_for_is_believed(path, bundle, broker, driver):
    stranger = SigningKey.generate()
    old = driver.grant(not_after=NOW - timedelta(hours=1))
    forged = driver.grant(key=stranger)
    another = driver.grant("device-2")
    driver.broadcast()
    with SiteAgent(path, bundle, broker) as agent:
        driver.say(driver.offer_of(grant=old))
        driver.say(driver.offer_of(grant=forged))
        driver.say(driver.offer_of(grant=another))
        driver.say(driver.offer_of(), key=stranger)
        foreign = driver.offer_of("device-2", grant=driver.grant())
        envelope = signed_by_gateway(foreign, driver.signing_key)
        driver.link.publish(down("device-1", Down.ROUND), envelope)
        driver.link.publish(down("device-1", Down.ROUND), envelope[:-9])
        driver.link.publish(down("device-1", Down.ROUND), sign_payload(b"{}", driver.signing_key))
        expected = {
            "expired": 1,
            "unknown_key": 2,
            "foreign_grant": 1,
            "foreign_device": 1,
            "not_json": 1,
            "missing_field": 1,
        }
        assert wait_until(lambda: agent.refused == expected), agent.refused
    assert (driver.came, step_of(path), debited(path)) == ([], None, [])


def test_question_for_counts_is_debited_and_answered_once_in_its_form(path, bundle, broker, driver):
    policy = replace(POLICY, channels=(DRIFT,))
    driver.material = RoundMaterial(
        weights=WEIGHTS[:0], policy=signed(policy), question=QUESTION.to_text()
    )
    driver.broadcast()
    with SiteAgent(path, bundle, broker):
        offer = driver.offer_of_counts("drift", index=0)
        driver.say(offer)
        first = driver.wait_for_answer(offer, path)
        driver.say(driver.offer_of_counts("metrics", index=0))
        assert wait_until(lambda: step_of(path).step.stream == "metrics")
        assert wait_until(lambda: state_of(path) is StepState.ANSWERED)
        driver.came.clear()
        driver.say(offer)
        again = driver.wait_for_answer(offer, path)
    with TelemetryStore(path) as store:
        events = read_device_ledger(path, store).events

    assert (first.values.sum(), first.receipt) == (len(QUESTION.bins), "")
    assert not again.values.any()
    assert [(event.channel, event.index) for event in events] == [("drift", 0)]
