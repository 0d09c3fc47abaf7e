"""What `status` and `diagnostics` say of rounds behind a gateway, and what keeps a device out."""

import json
import zipfile

import pytest

from edge_client.cli import run
from edge_client.link.config_receiver import keep_configuration
from edge_client.provisioning.identity import identity_path
from edge_client.site_rounds.kept_step import Ending, KeptStep, keep_step
from edge_client.site_rounds.time_left import moment_of
from edge_client.store.mailbox import Purpose
from edge_client.telemetry_store import TelemetryStore
from tests.support.edge_devices import NOW
from tests.support.site_devices import GATEWAY, site_store
from tests.support.site_power_cut import Gateway
from tests.support.training_tasks import KEYS
from tests.support.wire_messages import configuration


@pytest.fixture
def path(tmp_path):
    return site_store(tmp_path / "device", days=2)


@pytest.fixture
def told(path, capsys):
    keys = path.with_name("keys.json")
    keys.write_text(json.dumps({name: key.hex() for name, key in KEYS.items()}))

    def of(command, *words):
        usual = ["--store", str(path), "--server-key", str(keys), "--now", NOW.isoformat()]
        assert run([command, *usual, *words]) == 0
        return capsys.readouterr().out

    return of


def lacking(told, *words):
    said = json.loads(told("status", "--json", *words))
    return said["gateway_rounds"]["lacking"]


def keep_step_of(path, *, ending=None):
    gateway = Gateway(None)
    step = KeptStep(
        offer=gateway.offer_of(index=3),
        gateway=GATEWAY,
        seal_key=gateway.opening_key.seal_key.to_bytes().hex(),
        granted=NOW,
        received=moment_of(NOW.timestamp()),
    )
    with TelemetryStore(path) as store:
        keep_step(store, step if ending is None else step.closed(ending))


def test_device_that_was_told_nothing_is_off(told):
    assert lacking(told) == ["turned_off", "no_gateway_heard"]
    (line,) = [line for line in told("status").splitlines() if line.startswith("gateway")]
    assert line.split() == ["gateway", "off"]


def test_status_says_what_keeps_a_device_out_until_nothing_does(path, told):
    on = ("--gateway-rounds", "on")
    identity = identity_path(path)
    kept = identity.read_bytes()
    identity.unlink()
    with TelemetryStore(path) as store:
        store.set_consent(Purpose.TRAINING, granted=False, now=NOW)
        keep_configuration(store, configuration(training=False), now=NOW)
    assert lacking(told, *on, "--bytes-per-day", "9000") == [
        "no_identity",
        "no_consent",
        "stopped",
        "too_few_bytes",
        "no_gateway_heard",
    ]
    words = told("status", *on, "--bytes-per-day", "9000")
    assert "fedcell-device consent grant training" in words
    assert "bytes_per_day holds no answer" in words

    identity.write_bytes(kept)
    with TelemetryStore(path) as store:
        store.set_consent(Purpose.TRAINING, granted=True, now=NOW)
        keep_configuration(store, configuration(sequence=2, training=True), now=NOW)
    assert lacking(told, *on) == ["no_gateway_heard"]
    keep_step_of(path)
    assert lacking(told, *on) == []


def test_device_without_a_server_key_says_so(path, capsys):
    run(["status", "--json", "--store", str(path), "--gateway-rounds", "on"])
    said = json.loads(capsys.readouterr().out)["gateway_rounds"]
    assert said["lacking"] == ["no_server_keys", "no_gateway_heard"]


def test_last_step_is_told_with_its_end(path, told):
    keep_step_of(path, ending=Ending.NO_MATERIAL)
    said = json.loads(told("status", "--json"))["gateway_rounds"]["last_step"]
    assert said == {
        "kind": "update",
        "stream": "s",
        "index": 3,
        "gateway": "gateway-1",
        "state": "closed",
        "ending": "no_material",
        "offered_at": "2026-06-01T12:00:00+00:00",
    }
    assert "last step 3 of s: no_material (gateway-1, 2026-06-01T12:00:00+00:00)" in told("status")


def test_support_archive_says_what_lacks_and_names_neither_gateway_nor_stream(path, told, tmp_path):
    keep_step_of(path, ending=Ending.RELEASED)
    told("diagnostics", "--out", str(tmp_path / "a.zip"), "--gateway-rounds", "on")
    with zipfile.ZipFile(tmp_path / "a.zip") as archive:
        text = archive.read("diagnostics.json").decode()
    said = json.loads(text)["gateway_rounds"]
    last = {"state": "closed", "ending": "released", "days_ago": 0}
    assert said == {"lacking": [], "last_step": last}
    assert GATEWAY not in text
