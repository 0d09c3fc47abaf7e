"""A hub with a file of device keys: sealed notices, devices without a key, a file that changes."""

import json
import logging
import os
from datetime import timedelta

import pytest

from models.wire.codec import decode
from models.wire.envelope import SigningKey, open_signed, trusted_keys
from models.wire.messages import Configuration, Notice
from models.wire.sealing import OpeningKey, is_sealed, open_message
from models.wire.topics import Down, down
from server.device_configuration import ConfigurationSender, DeviceSettings
from server.device_keys import DeviceKeyFile
from server.errors import KeyFileError, KeyFileMissingError
from server.hub_status import hub_status
from server.storage.database import open_database
from tests.support.hubs import SIGNER, HubOnPaper
from tests.support.wire_messages import healthy_summary, summary

OPENING = OpeningKey.from_bytes(bytes(range(64, 96)))
TRUSTED = trusted_keys(SIGNER.verify_key)


SIGN = SIGNER.verify_key.to_bytes().hex()
KEY = "ab" * 32


def entry(device="device-1", *, opening=OPENING):
    return raw_entry(device, sign=SIGN, seal=opening.seal_key.to_bytes().hex())


def raw_entry(device="device-1", **keys):
    return json.dumps({device: keys})


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "devices.json"
    path.write_text(entry() + "\n")
    return path


@pytest.fixture
def paper(tmp_path, file):
    with open_database(f"sqlite:///{tmp_path / 'hub.db'}") as database:
        yield HubOnPaper(database, device_keys=DeviceKeyFile(file))


def opened(paper, *, key=OPENING, position=-1):
    topic, payload, _ = paper.link.published[position]
    assert is_sealed(payload)
    return decode(open_message(payload, topic=topic, trusted=TRUSTED, opening_key=key), Notice)


def replace_file(path, text):
    before = path.stat().st_mtime_ns
    path.write_text(text)
    os.utime(path, ns=(before + 10**9, before + 10**9))


def test_a_notice_leaves_sealed_to_the_devices_key(paper):
    paper.hear(summary())
    paper.hub.tick()

    assert opened(paper).device == "device-1"
    assert paper.link.published[0][0] == down("device-1", Down.NOTIFY)
    assert len(paper.link.published[0][1]) == 641


def test_a_device_without_a_key_gets_no_notice_and_status_says_so(paper, file):
    paper.hear(summary(device="device-2"))
    paper.hub.tick()

    assert paper.link.published == []
    assert paper.trail("device-2")[-1].reason_code == "no_device_key"
    status = hub_status(paper.database, device_keys=DeviceKeyFile(file))
    assert (status.suppressed, status.devices_without_key) == ({"no_device_key": 1}, 1)
    assert status.sent == 0


def test_a_key_added_to_the_file_counts_without_a_restart(paper, file):
    paper.hear(summary(device="device-2"))
    other = OpeningKey.generate()
    replace_file(file, entry() + entry("device-2", opening=other))

    paper.hear(summary(device="device-2", id="9" * 32, sequence=2))
    paper.hub.tick()

    assert opened(paper, key=other).device == "device-2"


def test_a_waiting_notice_is_sealed_to_the_key_that_the_device_has_now(paper, file):
    paper.hear(summary())
    paper.hub.tick()
    other = OpeningKey.generate()
    replace_file(file, entry(opening=other))
    paper.pass_time(minutes=2)

    assert opened(paper, position=0) == opened(paper, key=other)


def test_a_device_taken_from_the_file_gets_nothing_more(paper, file):
    paper.hear(summary())
    paper.hub.tick()
    replace_file(file, entry("device-9"))
    paper.pass_time(minutes=2)
    assert len(paper.link.published) == 1

    replace_file(file, entry())
    paper.pass_time(minutes=10)
    assert len(paper.link.published) == 2


def configure(paper, device):
    with paper.database.transaction() as connection:
        sender = ConfigurationSender(connection, SIGNER, lambda: next(paper.ids))
        sender.send(device, DeviceSettings(training=False), now=paper.now)
    paper.hub.tick()
    return paper.link.published[-1]


def test_a_configuration_reaches_a_device_without_a_key_and_is_sealed_for_others(paper):
    paper.hear(healthy_summary())
    paper.hear(healthy_summary(device="device-2", id="2" * 32))
    topic, sealed, _ = configure(paper, "device-1")
    told = open_message(sealed, topic=topic, trusted=TRUSTED, opening_key=OPENING)
    _, signed, _ = configure(paper, "device-2")

    assert is_sealed(sealed)
    assert decode(told, Configuration).training is False
    assert decode(open_signed(signed, TRUSTED), Configuration).device == "device-2"


def test_a_file_that_becomes_unusable_leaves_the_old_keys_and_is_said_once(paper, file, caplog):
    with caplog.at_level(logging.ERROR, "server.device_keys"):
        replace_file(file, "{")
        paper.hear(summary())
        paper.hub.tick()
        paper.pass_time(minutes=2)
        file.unlink()
        paper.pass_time(minutes=5)
    assert len(paper.link.published) == 3
    said = [record.getMessage() for record in caplog.records]
    assert len(said) == 2
    assert f"{file}:1: is no JSON object" in said[0]
    assert "no such file" in said[1]


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("[]", r":1: is no JSON object"),
        (entry() + "\n\nnonsense", r":3: is no JSON object"),
        (raw_entry(sign=KEY), "'device-1' is not a device with two keys"),
        (raw_entry(sign=KEY, seal="ab"), "'device-1' is not a device"),
        ('{"device-1": 7}', "'device-1' is not a device"),
        (raw_entry("a/b", sign=KEY, seal=KEY), "'a/b' is not a device"),
        (entry() + entry(opening=OpeningKey.from_bytes(bytes(32))), "names device-1 twice"),
        ("[" * 100_000, "is no JSON object"),
    ],
)
def test_a_file_of_something_else_is_refused_with_its_place(tmp_path, text, what):
    path = tmp_path / "keys.json"
    path.write_text(text)

    with pytest.raises(KeyFileError, match=what) as refused:
        DeviceKeyFile(path)

    assert refused.value.exit_code == 5
    assert "fedcell-device identity" in str(refused.value) or "remove the entry" in str(
        refused.value
    )


def test_a_missing_file_is_a_missing_part(tmp_path):
    with pytest.raises(KeyFileMissingError) as missing:
        DeviceKeyFile(tmp_path / "keys.json")

    assert missing.value.exit_code == 4


def test_many_devices_in_one_object_and_one_a_line_read_alike(tmp_path):
    path = tmp_path / "keys.json"
    both = json.loads(entry("a")) | json.loads(entry("b"))
    path.write_text(json.dumps(both, indent=2) + "\n" + entry("a") + "\n" + entry("c"))
    keys = DeviceKeyFile(path)

    assert len(keys) == 3
    assert keys.of("b").seal.to_bytes() == OPENING.seal_key.to_bytes()
    assert keys.of("d") is None


def test_a_key_that_hides_nothing_is_treated_as_none(paper, file, caplog):
    replace_file(file, raw_entry(sign=KEY, seal="00" * 32))
    paper.hear(summary())
    paper.hub.tick()
    paper.now += timedelta(minutes=5)
    paper.hub.tick()

    assert paper.link.published == []
    assert "nothing is sealed to device-1" in caplog.text


def test_the_signing_half_is_kept_for_verifying_what_devices_say(file):
    keys = DeviceKeyFile(file).of("device-1")

    keys.sign.verify(SIGNER.key.sign(b"x"), b"x")
    assert keys.sign.key_id == SigningKey.from_bytes(bytes(range(32))).verify_key.key_id
