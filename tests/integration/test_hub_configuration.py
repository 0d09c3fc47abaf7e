"""Configurations from an operator to devices: signed, numbered, sent until they are in force."""

import json

import pytest

from models.wire.codec import decode
from models.wire.envelope import open_signed, trusted_keys
from models.wire.errors import WireError
from models.wire.messages import Configuration
from models.wire.topics import Down, down
from server.device_configuration import LIFETIME, ConfigurationSender, DeviceSettings
from server.errors import DeviceUnknownError
from server.hub_status import hub_status
from server.storage.database import open_database
from tests.integration.test_hub_commands import fedcell
from tests.support.hubs import SIGNER, HubOnPaper
from tests.support.wire_messages import birth, summary

TRUSTED = trusted_keys(SIGNER.verify_key)


@pytest.fixture
def paper(tmp_path):
    with open_database(f"sqlite:///{tmp_path / 'hub.db'}") as database:
        paper = HubOnPaper(database)
        paper.hear(birth())
        yield paper


def send(paper, device="device-1", **settings):
    with paper.database.transaction() as connection:
        sender = ConfigurationSender(connection, SIGNER, lambda: next(paper.ids))
        return sender.send(device, DeviceSettings(**settings), now=paper.now)


def published(paper):
    topic = down("device-1", Down.CONFIG)
    return [
        decode(open_signed(payload, TRUSTED), Configuration)
        for name, payload, _ in paper.link.published
        if name == topic
    ]


def test_a_configuration_is_published_until_the_device_has_it(paper):
    sent = send(paper, training=False, predict_every_h=48)
    paper.hub.tick()
    paper.pass_time(minutes=2)
    assert published(paper) == [sent, sent]
    assert hub_status(paper.database).configurations == {"waiting": 1}

    paper.hear(birth(configuration_sequence=sent.sequence))
    paper.pass_time(days=3)
    assert len(published(paper)) == 2
    assert hub_status(paper.database).configurations == {"in_force": 1}
    assert (sent.training, sent.summaries, sent.predict_every_h) == (False, None, 48)
    assert paper.trail()[-1].reason_code == "no_training+every_48h"


def test_a_later_configuration_takes_the_place_of_the_one_that_waits(paper):
    first = send(paper, training=False)
    second = send(paper)
    paper.hub.tick()

    assert published(paper) == [second]
    assert second.sequence == first.sequence + 1
    assert paper.trail()[-1].reason_code == "all_as_agreed"


def test_a_device_that_lost_its_configuration_is_sent_it_anew(paper):
    sent = send(paper, summaries=False)
    paper.hub.tick()
    paper.hear(birth(configuration_sequence=sent.sequence))
    paper.hear(birth(id="8" * 32, sequence=2))
    paper.hub.tick()

    again = published(paper)[-1]
    assert again.sequence > sent.sequence
    assert again.summaries is False


def test_one_that_expired_while_the_device_was_away_is_sent_anew(paper):
    sent = send(paper, prediction=False)
    paper.now += LIFETIME
    paper.hub.tick()
    assert published(paper) == []
    paper.hear(birth(id="8" * 32, sequence=2))
    paper.hub.tick()

    (again,) = published(paper)
    assert again.expires > paper.now > sent.expires - LIFETIME
    assert again.prediction is False


def test_an_owner_who_wants_no_notices_is_still_configured(paper):
    paper.hear(summary())
    sent = send(paper, training=False)
    paper.hear(summary(id="7" * 32, sequence=2, notices_wanted=False))
    paper.hub.tick()

    assert published(paper) == [sent]
    assert hub_status(paper.database).waiting == 0


def test_what_is_out_of_bounds_or_to_nobody_is_not_sent(paper):
    with pytest.raises(WireError, match="predict_every_h"):
        send(paper, predict_every_h=0)
    with pytest.raises(DeviceUnknownError, match="device-7"):
        send(paper, "device-7")
    assert hub_status(paper.database).configurations == {}


def test_an_operator_types_it(capsys, tmp_path, paper):
    url, key = f"sqlite:///{tmp_path / 'hub.db'}", str(tmp_path / "hub.pem")
    fedcell(capsys, "key", "--out", key)
    words = ["configure", "device-1", "--stop", "training", "--stop", "notices"]
    code, out, err = fedcell(capsys, *words, "--db", url, "--key", key, "--json")

    assert (code, err) == (0, "")
    told = json.loads(out)
    assert told["settings"] == {"training": False, "notices": False}
    assert list(told["devices"]) == ["device-1"]
    code, out, _ = fedcell(capsys, "configure", "device-1", "--db", url, "--key", key)
    assert out == "1 devices are told: as their owners agreed\n"
    assert "configurations:\n  waiting              1" in fedcell(capsys, "status", "--db", url)[1]
    code, _, err = fedcell(capsys, "configure", "device-7", "--db", url, "--key", key)
    assert (code, err.count("\n")) == (3, 1)
    assert "device-7: has never spoken" in err


def test_what_a_device_refused_is_counted(paper):
    paper.hear(birth(id="8" * 32, refused_model="1.2.0", refused_because="untrusted"))

    assert hub_status(paper.database).refused_models == {"untrusted": 1}
    with pytest.raises(WireError, match="belong together"):
        birth(refused_model="1.2.0")
