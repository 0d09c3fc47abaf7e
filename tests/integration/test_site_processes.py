"""A whole device in a gateway's round, in a process without torch: what it takes and loads."""

import json
import subprocess
import sys
from base64 import b64decode
from dataclasses import replace

import pytest

from edge_client.agent import AgentParts
from edge_client.errors import TaskRefusedError
from edge_client.privacy.participation import REFUSAL_FACT
from edge_client.site_rounds.kept_step import KeptStep
from edge_client.site_rounds.separate_process import Asked, answer, answered_aside
from edge_client.site_rounds.settings import DeviceAt
from edge_client.site_rounds.time_left import moment_of
from edge_client.store.mailbox import Purpose
from edge_client.telemetry_store import TelemetryStore
from tests.support.brokers import RecordingLink, mosquitto_in, wait_until
from tests.support.device_processes import DeviceProcess, children_of, peak_mb
from tests.support.edge_devices import NOW
from tests.support.site_devices import GATEWAY, SiteDriver, debited, site_store
from tests.support.site_power_cut import Gateway
from tests.support.training_tasks import KEYS

pytestmark = pytest.mark.broker

MOST_MB = 100


@pytest.fixture
def path(tmp_path):
    return site_store(tmp_path / "device")


def test_device_without_torch_stays_below_100_mb_in_a_round(path, tmp_path):
    with mosquitto_in(tmp_path) as broker, SiteDriver(broker) as driver:
        driver.broadcast()
        with DeviceProcess(path, broker, "--gateway-rounds", "on") as device:
            assert wait_until(lambda: driver.born)
            before = peak_mb(device.pid)
            offer = driver.offer()
            assert driver.wait_for_answer(offer, path).values.any()
            peak = peak_mb(device.pid)
            assert children_of(device.pid) == []
        print(f"peak {peak:.1f} MB, before the round {before:.1f} MB")
    assert peak <= MOST_MB
    assert debited(path) == [0]


def test_agent_that_was_not_told_to_take_part_loads_nothing_of_it_and_hears_no_offer():
    program = (
        "import json, sys, edge_client.agent, edge_client.link.config_receiver, models.wire.link;"
        "from edge_client.config import DeviceConfig;"
        "is_on = DeviceConfig(store='x').takes_part_behind_gateway();"
        "print(json.dumps([is_on, sorted(sys.modules)]))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], check=True, capture_output=True, text=True
    )
    is_on, loaded = json.loads(done.stdout)
    parts = ("edge_client.site_rounds", "edge_client.own_training", "models.wire.site_rounds")
    assert not is_on
    assert [name for name in loaded if name.startswith(parts)] == []
    link = RecordingLink()
    AgentParts().listen(link, None, wake=None, meter=None)
    assert link.handlers == {}


@pytest.mark.soak
def test_opacus_trains_in_a_process_that_ends_and_never_in_the_agent(path, tmp_path):
    with mosquitto_in(tmp_path) as broker, SiteDriver(broker) as driver:
        driver.broadcast()
        options = {"training_path": "opacus"}
        with DeviceProcess(path, broker, "--gateway-rounds", "on", **options) as device:
            assert wait_until(lambda: driver.born)
            offer = driver.offer()
            assert wait_until(lambda: children_of(device.pid))
            assert driver.wait_for_answer(offer, path, timeout_s=60).values.any()
            peak = peak_mb(device.pid)
            assert children_of(device.pid) == []
    # The agent of this test could not load torch if it tried.
    assert peak <= MOST_MB
    assert debited(path) == [0]


def asked_for(path, gateway, **values):
    kept = KeptStep(
        offer=gateway.offer_of(),
        gateway=GATEWAY,
        seal_key=gateway.opening_key.seal_key.to_bytes().hex(),
        granted=NOW,
        received=moment_of(NOW.timestamp()),
    )
    named = {"telemetry-db": str(path), "power-supplies": "/nowhere", **values}
    return Asked(DeviceAt(named, KEYS), kept, gateway.material, NOW)


def test_process_of_its_own_answers_once_and_with_zeros_when_it_is_asked_again(path):
    gateway = Gateway(None)
    asked = asked_for(path, gateway)
    aside = answered_aside(asked, left_s=60.0)
    here = answer(asked.to_bytes(), present=lambda at: moment_of(at.timestamp()))
    again = tuple(map(b64decode, here["parts"]))
    answers = [gateway.opened_from(gateway.offer_of(), path, parts) for parts in (aside, again)]
    assert [bool(one.values.any()) for one in answers] == [True, False]
    assert debited(path) == [0]
    with TelemetryStore(path) as store:
        store.set_consent(Purpose.TRAINING, granted=False, now=NOW)
    with pytest.raises(TaskRefusedError, match="does not agree"):
        answered_aside(asked, left_s=30.0)


def test_device_that_lacks_what_its_training_needs_answers_zeros_and_debits_nothing(
    path, monkeypatch
):
    monkeypatch.setitem(sys.modules, "torch", None)
    monkeypatch.delitem(sys.modules, "edge_client.hooked_training", raising=False)
    gateway = Gateway(None)
    asked = asked_for(path, gateway, **{"training-path": "opacus"})
    said = answer(asked.to_bytes(), present=lambda at: moment_of(at.timestamp()))
    answered = gateway.opened_from(gateway.offer_of(), path, list(map(b64decode, said["parts"])))
    assert not answered.values.any()
    assert debited(path) == []
    with TelemetryStore(path) as store:
        assert store.fact(REFUSAL_FACT)["reason"] == "part_missing"


@pytest.mark.parametrize("how", ["withdrawn", "over"])
def test_process_of_its_own_says_why_it_does_not_answer(path, how):
    asked = asked_for(path, Gateway(None))
    if how == "withdrawn":
        with TelemetryStore(path) as store:
            store.set_consent(Purpose.TRAINING, granted=False, now=NOW)
        expected = "refused"
    else:
        long_ago = replace(asked.step.received, elapsed_s=asked.step.received.elapsed_s - 100.0)
        asked = replace(asked, step=replace(asked.step, received=long_ago))
        expected = "over"
    said = answer(asked.to_bytes(), present=lambda at: moment_of(at.timestamp()))
    assert said["ending"] == expected
    assert debited(path) == []
