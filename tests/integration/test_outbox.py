"""The outbox over a real database: repeated until the device answers, or the time is over."""

from datetime import timedelta

import pytest

from models.wire.messages import NoticeState
from server.outbox import DeliveryPolicy
from server.storage.database import open_database
from tests.support.hubs import HubOnPaper
from tests.support.wire_messages import ack, birth, summary


@pytest.fixture
def paper(tmp_path):
    with open_database(f"sqlite:///{tmp_path / 'hub.db'}") as database:
        yield HubOnPaper(database)


def received(notice, **changes):
    return ack(device=notice.device, correlation=notice.id, **changes)


def test_a_notice_is_repeated_with_growing_waits_until_the_device_answers(paper):
    paper.hear(summary())
    sent_at = []
    for _ in range(60):
        before = len(paper.sent)
        paper.pass_time(seconds=10)
        sent_at += [(paper.now - paper.sent[0].issued).seconds] * (len(paper.sent) - before)
    paper.hear(received(paper.sent[0]))
    paper.pass_time(days=2)

    assert sent_at == [10, 70, 190, 430]
    assert len(paper.sent) == 4
    assert len({notice.id for notice in paper.sent}) == 1
    assert (paper.status().waiting, paper.status().acknowledged) == (0, 1)


def test_waits_double_up_to_a_day():
    policy = DeliveryPolicy()

    assert policy.wait_after(1) == timedelta(seconds=60)
    assert policy.wait_after(5) == timedelta(seconds=960)
    assert policy.wait_after(1000) == timedelta(days=1)


def test_a_notice_that_nobody_answers_expires(paper):
    paper.hear(summary())
    paper.hub.tick()
    (_, _, expires_in_s) = paper.link.published[0]
    paper.pass_time(days=14)
    published = len(paper.sent)
    paper.pass_time(days=30)

    assert expires_in_s == 14 * 86_400
    assert len(paper.sent) == published == 1
    assert paper.status().notices == {"expired": 1}
    assert paper.status().waiting == 0
    assert [line.reason_code for line in paper.trail()] == ["flagged+under_30_days", "expired"]


def test_an_answer_after_the_expiry_still_counts(paper):
    paper.hear(summary())
    paper.pass_time(days=15)
    paper.restart()
    paper.hub.tick()
    with paper.database.transaction() as connection:
        (notice_id,) = connection.exec_driver_sql("SELECT notice_id FROM notices").one()
    assert paper.status().notices == {"expired": 1}

    paper.hear(ack(correlation=notice_id, state=NoticeState.SHOWN, version=3))

    assert paper.status().notices == {"shown": 1}
    assert paper.status().acknowledged == 1


def test_a_restarted_hub_goes_on_where_the_old_one_stopped(paper):
    paper.hear(summary())
    paper.restart()
    paper.hub.tick()

    assert len(paper.sent) == 1
    paper.restart()
    paper.pass_time(seconds=61)

    assert len(paper.sent) == 2
    assert paper.sent[0] == paper.sent[1]


def test_nothing_is_tried_while_the_broker_is_away(paper):
    paper.link.is_connected = False
    paper.hear(summary())
    paper.pass_time(hours=1)

    assert paper.sent == []
    paper.link.is_connected = True
    paper.pass_time(seconds=1)

    assert len(paper.sent) == 1


def test_what_the_link_does_not_take_stays_due(paper):
    paper.link.is_full = True
    paper.hear(summary())
    paper.hub.tick()
    paper.link.is_full = False
    paper.hub.tick()

    assert len(paper.sent) == 1


def test_a_device_that_comes_back_is_sent_what_it_has_not_answered(paper):
    for device in ("device-1", "device-2"):
        paper.hear(summary(device=device))
    paper.hub.tick()
    paper.pass_time(seconds=7)
    paper.hear(birth(device="device-2"))
    paper.pass_time(seconds=5)

    assert [notice.device for notice in paper.sent] == ["device-1", "device-2", "device-2"]


def test_a_broker_that_comes_back_is_given_everything_unanswered(paper):
    for device in ("device-1", "device-2"):
        paper.hear(summary(device=device))
    paper.hub.tick()
    paper.hear(received(paper.sent[0]))
    for first_connection_then_another in (False, False):
        paper.link.hooks[0](first_connection_then_another)
    paper.pass_time(seconds=5)

    assert [notice.device for notice in paper.sent] == ["device-1", "device-2", "device-2"]


def test_more_than_a_batch_goes_out_in_several(paper, monkeypatch):
    monkeypatch.setattr("server.outbox.BATCH", 2)
    for number in range(5):
        paper.hear(summary(device=f"device-{number}"))
    batches = []
    for _ in range(4):
        paper.hub.tick()
        batches.append(len(paper.sent))

    assert batches == [2, 4, 5, 5]
