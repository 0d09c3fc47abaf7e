from datetime import UTC, datetime, timedelta

import pytest

from edge_client.errors import ConsentMissingError
from edge_client.store.mailbox import Purpose, Traffic
from edge_client.telemetry_store import TelemetryStore
from models.wire.fields import Consent
from models.wire.messages import NoticeState
from tests.support.edge_devices import NOW, new_store


@pytest.fixture
def store(tmp_path):
    with new_store(tmp_path) as store:
        yield store


def test_nothing_is_granted_until_the_owner_says_so(store):
    assert {purpose: said.granted for purpose, said in store.consents().items()} == {
        Purpose.TRAINING: False,
        Purpose.SUMMARIES: False,
        Purpose.NOTICES: False,
    }


def test_purposes_are_the_ones_that_messages_name():
    assert {purpose.value for purpose in Purpose} == set(Consent) - {Consent.LINK}


def test_withdrawn_consent_is_gone(store):
    store.set_consent(Purpose.TRAINING, granted=True, now=NOW)
    store.set_consent(Purpose.TRAINING, granted=False, now=NOW + timedelta(days=1))
    assert not store.consents()[Purpose.TRAINING].granted


def test_sequence_counts_up_durably(store):
    old = datetime(1970, 1, 1, tzinfo=UTC)
    assert [store.next_sequence("summary", now=old) for _ in range(3)] == [1, 2, 3]
    assert store.next_sequence("ack", now=old) == 1
    with TelemetryStore(store.path) as again:
        assert again.next_sequence("summary", now=old) == 4


def test_sequence_of_a_new_store_is_above_that_of_the_old_one(store):
    first = store.next_sequence("summary", now=NOW)
    assert first == int(NOW.timestamp())
    assert store.next_sequence("summary", now=NOW - timedelta(days=1)) == first + 1


def test_sequence_forgets_a_clock_that_was_far_ahead(store):
    store.next_sequence("summary", now=NOW + timedelta(days=900))
    right = store.next_sequence("summary", now=NOW)
    assert right == int(NOW.timestamp())
    assert store.next_sequence("summary", now=NOW) == right + 1


def test_notice_is_kept_once(store):
    assert store.last_notice_sequence == 0
    assert store.keep_notice("n-1", sequence=7, version=2, body="{}", now=NOW)
    assert not store.keep_notice("n-1", sequence=7, version=2, body="{}", now=NOW)
    assert store.last_notice_sequence == 7
    assert len(store.notices()) == 1


def test_each_change_of_a_notice_is_counted_once(store):
    store.keep_notice("n-1", sequence=1, version=2, body="{}", now=NOW)
    assert store.notice("n-1").state is NoticeState.RECEIVED
    assert store.set_notice_state("n-1", NoticeState.SHOWN).version == 3
    assert store.set_notice_state("n-1", NoticeState.SHOWN).version == 3
    accepted = store.set_notice_state("n-1", NoticeState.ACCEPTED)
    assert (accepted.state, accepted.version) == (NoticeState.ACCEPTED, 4)


def test_outbox_keeps_messages_in_order_until_they_are_sent(store):
    store.set_consent(Purpose.SUMMARIES, granted=True, now=NOW)
    store.put_out(Purpose.SUMMARIES, "t/1", b"one")
    store.put_out(Purpose.SUMMARIES, "t/2", b"two")
    first, second = store.outbox()
    assert (first.topic, first.payload, first.purpose) == ("t/1", b"one", Purpose.SUMMARIES)
    store.sent(first.number)
    with TelemetryStore(store.path) as again:
        assert again.outbox() == (second,)


def test_nothing_enters_the_outbox_without_consent(store):
    with pytest.raises(ConsentMissingError, match="consent grant summaries"):
        store.put_out(Purpose.SUMMARIES, "t", b"x")
    assert store.outbox() == ()


def test_withdrawing_consent_empties_its_part_of_the_outbox(store):
    for purpose in (Purpose.SUMMARIES, Purpose.NOTICES):
        store.set_consent(purpose, granted=True, now=NOW)
        store.put_out(purpose, "t", b"x")
    store.set_consent(Purpose.SUMMARIES, granted=False, now=NOW)
    assert [message.purpose for message in store.outbox()] == [Purpose.NOTICES]


def test_outbox_is_bounded(store, monkeypatch):
    monkeypatch.setattr("edge_client.store.mailbox.MAX_WAITING_MESSAGES", 3)
    store.set_consent(Purpose.NOTICES, granted=True, now=NOW)
    for number in range(5):
        store.put_out(Purpose.NOTICES, "t", b"%d" % number)
    assert [message.payload for message in store.outbox()] == [b"2", b"3", b"4"]


def test_transaction_within_another_is_part_of_it(store):
    def two_changes_that_fail():
        with store.transaction():
            store.set_language("de")
            store.next_sequence("ack", now=NOW)
            raise RuntimeError

    with pytest.raises(RuntimeError):
        two_changes_that_fail()
    assert store.language == "en"
    assert store.fact("ack_sequence") is None


def test_unknown_notice_is_an_error(store):
    with pytest.raises(KeyError):
        store.set_notice_state("n-9", NoticeState.SHOWN)


def test_traffic_is_added_up_by_day_direction_and_kind(store):
    store.count_traffic(
        [Traffic(20_000, "up", "summary", 1, 700), Traffic(20_000, "up", "ack", 2, 9)]
    )
    store.count_traffic([Traffic(20_000, "up", "summary", 2, 1_400)])
    store.count_traffic([])
    store.count_traffic([Traffic(20_001, "down", "notice", 1, 300)])
    assert store.traffic(20_001) == (Traffic(20_001, "down", "notice", 1, 300),)
    assert store.traffic(20_000)[:2] == (
        Traffic(20_000, "up", "ack", 2, 9),
        Traffic(20_000, "up", "summary", 3, 2_100),
    )


def test_old_traffic_leaves_a_few_days_at_a_time(store):
    store.count_traffic([Traffic(day, "up", "summary", 1, 1) for day in range(20_000, 20_010)])
    store.count_traffic([Traffic(21_000, "up", "summary", 1, 1)])
    assert [passed.day for passed in store.traffic(0)] == [*range(20_002, 20_010), 21_000]
