"""The hub's decisions over a real database, with a clock of its own."""

import json
from datetime import timedelta

import pytest

from models.wire import topics
from models.wire.codec import encode
from models.wire.errors import DeliverAgainError
from models.wire.messages import NoticeState, Presence, Template
from server.storage import database as database_module
from server.storage.audit import AuditedDecision
from server.storage.database import open_database
from server.storage.tables import devices
from tests.support.hubs import HubOnPaper
from tests.support.wire_messages import (
    ISSUED,
    ack,
    birth,
    healthy_summary,
    notice,
    numbered_id,
    soon_summary,
    status,
    summary,
)

SUMMARY_TOPIC = topics.up("device-1", topics.Up.SUMMARY)
# 12:00 UTC is quiet, until 15:00 in Berlin is 13:00 UTC.
QUIET = {"quiet_from_hour": 9, "quiet_until_hour": 15, "zone": "Europe/Berlin"}


@pytest.fixture
def paper(tmp_path):
    with open_database(f"sqlite:///{tmp_path / 'hub.db'}") as database:
        yield HubOnPaper(database)


def test_an_urgent_summary_leads_to_a_signed_notice(paper):
    told = summary(language="de")
    paper.hear(told)
    paper.hub.tick()
    (sent,) = paper.sent

    assert paper.link.published[0][0] == topics.down("device-1", topics.Down.NOTIFY)
    assert (sent.template, sent.language, sent.correlation) == (Template.UNDER_7, "de", told.id)
    assert (sent.issued, sent.expires) == (ISSUED, ISSUED + timedelta(days=14))
    assert (sent.days_band, sent.health_band) == (told.days_band, told.health_band)
    assert (sent.version, sent.human_contact) == (1, "help@example.org")
    assert paper.status().notices == {"queued": 1}


def test_every_decision_has_its_line(paper):
    paper.hear(healthy_summary(sequence=1))
    paper.hear(soon_summary(sequence=2))
    paper.hub.tick()
    paper.hear(ack(correlation=paper.sent[0].id))
    lines = [(line.decision, line.reason_code, line.model_version) for line in paper.trail()]

    assert lines == [
        (AuditedDecision.SUPPRESSED, "not_due", "1.0.0+abc"),
        (AuditedDecision.SENT, "under_30_days", "1.0.0+abc"),
        (AuditedDecision.NOTICE_STATE, "received", "1.0.0+abc"),
    ]
    assert paper.trail()[0].recheck_at == ISSUED + timedelta(days=1)
    assert paper.trail()[1].notice_id == paper.sent[0].id


def test_a_repeated_summary_changes_nothing(paper):
    paper.hear(summary())
    before = paper.status()
    paper.hear(summary())
    paper.hear(summary(sequence=0, id=numbered_id(9)))

    assert paper.status() == before
    assert paper.hub.counters.repeated == 2


def test_a_summary_from_the_future_is_refused_and_silences_nobody(paper):
    present = int(ISSUED.timestamp())
    paper.hear(summary(sequence=2**53 - 1))
    paper.hear(summary(sequence=present + 86_401, id=numbered_id(7)))
    paper.hear(summary(sequence=present + 86_400, id=numbered_id(8)))

    assert paper.status().dead_letters == {"sequence_ahead": 2}
    assert (paper.hub.counters.summaries, paper.status().sent) == (1, 1)


def test_a_number_that_was_kept_under_a_wrong_clock_silences_nobody(paper):
    paper.now = ISSUED + timedelta(days=900)
    paper.hear(healthy_summary(sequence=int(paper.now.timestamp())))
    paper.now = ISSUED
    paper.hear(summary(sequence=int(ISSUED.timestamp()), id=numbered_id(7)))

    assert paper.hub.counters.summaries == 2
    assert paper.status().sent == 1


def test_summaries_that_were_overtaken_are_told_from_repetitions(paper):
    paper.hear(summary(sequence=5))
    paper.hear(summary(sequence=5))
    paper.hear(summary(sequence=4, id=numbered_id(7)))

    assert (paper.hub.counters.repeated, paper.hub.counters.overtaken) == (2, 1)


def test_an_owner_who_withdraws_is_sent_no_repetitions_and_counts_as_not_told(paper):
    paper.hear(summary())
    paper.hear(summary(device="device-2"))
    paper.hub.tick()
    paper.hear(summary(sequence=2, id=numbered_id(7), notices_wanted=False))
    told = len(paper.sent)
    paper.pass_time(days=1)

    assert {sent.device for sent in paper.sent[told:]} == {"device-2"}
    assert paper.status().notices == {"expired": 1, "queued": 1}
    paper.hear(summary(sequence=3, id=numbered_id(8)))
    paper.hub.tick()
    assert paper.sent[-1].device == "device-1"


def test_acknowledgements_count_once_and_in_any_order(paper):
    paper.hear(summary())
    paper.hub.tick()
    said = {"correlation": paper.sent[0].id}
    shown = ack(**said, state=NoticeState.SHOWN, version=3)
    received = ack(**said, state=NoticeState.RECEIVED, version=2)
    for message in (shown, received, shown):
        paper.hear(message)
    accepted = ack(**said, state=NoticeState.ACCEPTED, version=4)
    paper.hear(accepted)

    assert paper.status().notices == {"accepted": 1}
    assert paper.hub.counters.acks == 2
    assert paper.hub.counters.repeated == 2
    assert [line.reason_code for line in paper.trail()][1:] == ["shown", "accepted"]


def test_quiet_hours_hold_a_notice_until_they_end(paper):
    paper.hear(summary(**QUIET))
    paper.pass_time(minutes=59)

    assert paper.sent == []
    assert paper.status().suppressed == {"quiet_hours": 1}
    paper.pass_time(minutes=1)

    assert [sent.template for sent in paper.sent] == [Template.UNDER_7]
    assert paper.sent[0].issued == ISSUED + timedelta(hours=1)
    assert paper.status().suppressed == {"quiet_hours": 1}


def test_a_held_notice_says_what_is_true_when_it_is_sent(paper):
    paper.hear(soon_summary(**QUIET))
    paper.hear(summary(sequence=2, **QUIET))
    paper.pass_time(hours=1)

    assert [sent.template for sent in paper.sent] == [Template.UNDER_7]


def test_a_device_that_recovered_meanwhile_is_sent_nothing(paper):
    paper.hear(summary(**QUIET))
    paper.hear(healthy_summary(sequence=2, **QUIET))
    paper.pass_time(hours=1)

    assert paper.sent == []
    assert paper.status().suppressed == {"quiet_hours": 1, "not_due": 1}


def test_a_worse_prediction_is_told_once_a_week_has_passed(paper):
    paper.hear(soon_summary())
    paper.hub.tick()
    paper.pass_time(days=5)
    paper.hear(summary(sequence=2))
    paper.pass_time(days=1, hours=23)
    templates = {sent.template for sent in paper.sent}
    paper.pass_time(hours=1)

    assert templates == {Template.FROM_7_TO_30}
    assert paper.sent[-1].template is Template.UNDER_7
    assert paper.status().suppressed == {"contacted_recently": 1}
    assert paper.status().sent == 2


def test_a_summary_that_has_grown_old_is_not_decided_on_again(paper):
    paper.hear(soon_summary())
    paper.hub.tick()
    paper.pass_time(hours=1)
    paper.hear(summary(sequence=2))
    paper.pass_time(days=8)

    assert paper.status().sent == 1
    with paper.database.transaction() as connection:
        assert connection.execute(devices.select()).one().recheck_at is None


def test_sequence_numbers_grow_even_over_a_restored_database(paper):
    paper.hear(soon_summary())
    paper.pass_time(days=8)
    paper.hear(summary(sequence=2))
    paper.hub.tick()
    first, *_, last = paper.sent

    assert first.sequence >= int(ISSUED.timestamp())
    assert last.sequence > first.sequence + 7 * 86_400


def test_two_notices_within_a_second_have_different_sequence_numbers(paper):
    paper.hear(soon_summary())
    paper.hub.tick()
    paper.hear(ack(correlation=paper.sent[0].id, state=NoticeState.FAILED))
    paper.hear(summary(sequence=2))
    paper.hub.tick()

    assert paper.sent[1].sequence == paper.sent[0].sequence + 1


def test_birth_and_status_are_kept(paper):
    paper.hear(birth())
    paper.hear(status(presence=Presence.ONLINE))
    with paper.database.transaction() as connection:
        row = connection.execute(devices.select()).one()

    assert (row.client_version, row.feature_spec_version) == ("0.1.0", "1")
    assert (row.model_version, row.presence) == ("1.0.0+abc", "online")


@pytest.mark.parametrize(
    ("topic", "payload", "reason"),
    [
        (SUMMARY_TOPIC, b"", "not_json"),
        (SUMMARY_TOPIC, b"\xff" * 9, "not_json"),
        (SUMMARY_TOPIC, b" " * 5000, "oversize"),
        (SUMMARY_TOPIC, encode(ack()), "wrong_type"),
        (SUMMARY_TOPIC, encode(summary(device="device-2")), "foreign_device"),
        (topics.up("device-1", topics.Up.ACK), encode(ack()), "unknown_notice"),
        (topics.up("device-1", topics.Up.REPLY), b"{}", "undeclared"),
        (topics.down("device-1", topics.Down.NOTIFY), encode(notice()), "undeclared"),
        ("elsewhere", encode(summary()), "bad_topic"),
    ],
)
def test_what_cannot_be_used_goes_to_the_dead_letters(paper, topic, payload, reason):
    paper.hub.receive(topic, payload)
    paper.hear(summary())

    assert paper.status().dead_letters == {reason: 1}
    assert paper.status().sent == 1


def test_nobody_acknowledges_for_another_device(paper):
    paper.hear(summary())
    paper.hub.tick()
    paper.hear(ack(device="device-2", correlation=paper.sent[0].id))

    assert paper.status().dead_letters == {"unknown_notice": 1}
    assert (paper.status().notices, paper.status().devices) == ({"queued": 1}, 1)


def test_a_database_that_is_lost_makes_the_broker_keep_the_message(tmp_path, monkeypatch):
    monkeypatch.setattr(database_module, "LOCK_TIMEOUT_S", 0)
    url = f"sqlite:///{tmp_path / 'hub.db'}"
    with open_database(url) as database, open_database(url) as other:
        paper = HubOnPaper(database)
        with other.transaction():
            for payload in (encode(summary()), b"not json"):
                with pytest.raises(DeliverAgainError, match="locked"):
                    paper.hub.receive(SUMMARY_TOPIC, payload)
        paper.hear(summary())

        assert paper.status().sent == 1
        assert paper.status().dead_letters == {}


def test_the_database_holds_bands_and_no_history_of_predictions(paper):
    paper.hear(healthy_summary(sequence=1))
    paper.hear(healthy_summary(sequence=2, model_version="2"))
    with paper.database.transaction() as connection:
        (kept,) = connection.exec_driver_sql("SELECT summary FROM devices").all()

    assert json.loads(kept[0])["model_version"] == "2"
    assert json.loads(kept[0])["days_band"] == "90_or_more"
