"""A device that sits a step out: zeros of the same form, debited, and shown to its owner."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from edge_client.cli import main
from edge_client.eligibility import SAT_OUT_FACT, EligibilityRule
from edge_client.own_training import OwnDevice, own_device
from edge_client.privacy.ledger_file import read_device_ledger
from edge_client.sensing.conditions import ConditionSources
from edge_client.telemetry_store import TelemetryStore
from models.wire.rounds import DeviceReceipt
from privacy import Participation
from tests.support.edge_devices import NOW
from tests.support.training_tasks import TERMS, agreeing_store, task_of


@pytest.fixture
def battery(tmp_path):
    folder = tmp_path / "power" / "BAT0"
    folder.mkdir(parents=True)
    for name, text in {"type": "Battery", "status": "Discharging", "capacity": "80"}.items():
        (folder / name).write_text(text)
    return folder


@pytest.fixture
def device(tmp_path, battery):
    with agreeing_store(tmp_path) as store:
        path = store.path
    rule = EligibilityRule(most_load_per_core=0.0)
    sources = ConditionSources(power_supplies=battery.parent)
    return OwnDevice(path, NOW, (), None, TERMS, rule=rule, sources=sources)


def trained():
    return np.arange(1, 4, dtype=np.int64)


def asked(device, index, *, train=trained, deadline_s=0.0):
    task = replace(task_of(index=index), deadline_s=deadline_s)
    return device.answer(task, train)


def never():
    pytest.fail("a device that sits out trained")


def sat_out(device):
    with TelemetryStore(device.store) as store:
        return store.fact(SAT_OUT_FACT)


def test_device_on_battery_answers_zeros_trains_nothing_and_debits(device, battery):
    total, (line,) = asked(device, 0, train=never)
    assert total is None
    assert DeviceReceipt.from_line(line).participations == 1
    assert sat_out(device) == {
        "stream": "s",
        "index": 0,
        "reasons": ["not_charging"],
        "at": NOW.isoformat(),
    }
    (battery / "status").write_text("Charging")
    # The same step stays sat out, whatever has changed since: one answer for one step.
    again, (line,) = asked(device, 0, train=never)
    assert again is None
    assert DeviceReceipt.from_line(line).participations == 1
    total, _ = asked(device, 2)
    assert total.tolist() == [1, 2, 3]
    assert sat_out(device) is None
    with TelemetryStore(device.store) as store:
        events = read_device_ledger(device.store, store).events
    assert [event.index for event in events if isinstance(event, Participation)] == [0, 2]


def test_device_waits_for_its_charger(device, battery):
    slept = []

    def sleep(seconds):
        slept.append(seconds)
        (battery / "status").write_text("Charging")

    waiting = replace(device, rule=replace(device.rule, wait_s=300.0), sleep=sleep)
    total, _ = asked(waiting, 0)
    assert total.any()
    assert (len(slept), sat_out(device)) == (1, None)


def test_device_does_not_wait_past_the_rounds_deadline(device):
    slept = []
    waiting = replace(device, rule=replace(device.rule, wait_s=86_400.0), sleep=slept.append)
    total, _ = asked(waiting, 0, deadline_s=60.0)
    assert total is None
    assert sum(slept) == 30.0


def test_device_with_too_few_rows_is_named_so(device, battery):
    (battery / "status").write_text("Full")
    total, _ = asked(device, 0, train=lambda: np.zeros(3, np.int64))
    assert not total.any()
    assert sat_out(device)["reasons"] == ["too_little_history"]


def test_bound_on_load_gives_an_update_of_zeros_no_reason_of_its_own(device, battery):
    (battery / "status").write_text("Full")
    bounded = replace(device, rule=replace(device.rule, most_load_per_core=1000.0))
    asked(bounded, 0, train=lambda: np.zeros(3, np.int64))
    assert sat_out(bounded)["reasons"] == ["too_little_history"]


def test_owner_sees_why_the_last_invitation_was_sat_out(device, capsys):
    asked(device, 0)
    assert main(["--store", str(device.store), "status"]) == 0
    assert "Last sat out: not_charging" in capsys.readouterr().out
    assert main(["--store", str(device.store), "status", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["training"]["last_sat_out"]["index"] == 0
    assert main(["--store", str(device.store), "ledger"]) == 0
    assert "the battery was not on external power" in capsys.readouterr().out
    assert main(["--store", str(device.store), "ledger", "--json", "--language", "de"]) == 0
    assert json.loads(capsys.readouterr().out)["last_sat_out"]["reasons"] == ["not_charging"]


def test_node_configuration_says_when_a_device_trains(device, battery):
    node = {"telemetry-db": str(device.store), "power-supplies": str(battery.parent)}
    found = own_device(node | {"train-needs-charging": False, "train-wait-s": 5}, now=NOW)
    assert (found.rule.needs_charging, found.rule.wait_s) == (False, 5.0)
    assert found.sources.power_supplies == Path(battery.parent)
