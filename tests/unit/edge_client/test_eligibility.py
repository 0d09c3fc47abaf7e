"""Whether a device takes part: a rule over conditions, and where the conditions come from."""

import json
import os
from dataclasses import replace
from pathlib import Path

import pytest

from edge_client.eligibility import (
    POLL_S,
    Conditions,
    EligibilityRule,
    reasons_to_sit_out,
    wait_until_eligible,
)
from edge_client.errors import InputError
from edge_client.privacy.owner_words import ledger_texts
from edge_client.sensing.conditions import FRESH_S, ConditionSources, eligibility_of
from edge_client.sensing.drivers.power_supply import PowerState, power_state
from edge_client.wording import LANGUAGES

RULE = EligibilityRule()
CHARGED = Conditions(
    has_battery=True,
    is_charging=True,
    battery_percent=80.0,
    load_per_core=0.2,
    is_metered=False,
    num_rows=180,
)
NOW_S = 1_780_000_000.0
GAUGES = Path(__file__).parents[2] / "golden" / "power_supply"


def reasons(conditions=CHARGED, rule=RULE, /, **changes):
    found = reasons_to_sit_out(replace(conditions, **changes), rule, least_rows=180)
    return [reason.value for reason in found]


def test_charged_idle_device_on_a_free_network_takes_part():
    assert reasons() == []


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"is_charging": False}, ["not_charging"]),
        ({"battery_percent": 29.9}, ["battery_low"]),
        ({"battery_percent": 30.0}, []),
        ({"load_per_core": 1.1}, ["busy"]),
        ({"load_per_core": 9.0, "is_idle": True}, []),
        ({"is_idle": False}, ["busy"]),
        ({"is_metered": True}, ["metered"]),
        ({"num_rows": 179}, ["too_little_history"]),
        ({"num_rows": None}, []),
        ({"is_told": False}, ["conditions_unknown"]),
        ({"is_charging": None, "battery_percent": None}, ["conditions_unknown"]),
        ({"is_metered": None}, ["conditions_unknown"]),
        ({"load_per_core": None}, ["conditions_unknown"]),
        (
            {"is_charging": False, "is_metered": True, "num_rows": 0},
            ["not_charging", "metered", "too_little_history"],
        ),
    ],
)
def test_device_with_a_battery_sits_out(changes, expected):
    assert reasons(**changes) == expected


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"load_per_core": 9.0}, []),
        ({"load_per_core": None}, []),
        ({"is_idle": False}, ["busy"]),
        ({"is_metered": True}, ["metered"]),
        ({"num_rows": 1}, ["too_little_history"]),
    ],
)
def test_device_without_a_battery_is_asked_nothing_of_power_or_load(changes, expected):
    assert reasons(Conditions(), **changes) == expected


@pytest.mark.parametrize(
    ("rule", "changes"),
    [
        ({"needs_charging": False}, {"is_charging": False}),
        ({"least_battery_percent": 0.0}, {"battery_percent": None}),
        ({"most_load_per_core": 0.0}, {"load_per_core": 50.0}),
        ({"allows_metered": True}, {"is_metered": None}),
    ],
)
def test_each_condition_can_be_switched_off(rule, changes):
    assert reasons(CHARGED, replace(RULE, **rule), **changes) == []
    assert reasons(**changes) != []


def test_load_bound_that_is_set_holds_without_a_battery_too():
    rule = replace(RULE, most_load_per_core=0.5)
    assert reasons(Conditions(load_per_core=0.6), rule) == ["busy"]


def waited(rule, charged_after_s):
    slept = []
    found = wait_until_eligible(
        lambda waited_s: replace(CHARGED, is_charging=waited_s >= charged_after_s),
        rule,
        least_rows=180,
        sleep=slept.append,
    )
    return list(found), slept


def test_device_waits_as_long_as_it_is_told_and_no_longer():
    assert waited(RULE, 1) == (["not_charging"], [])
    rule = replace(RULE, wait_s=2.5 * POLL_S)
    assert waited(rule, 0) == ([], [])
    assert waited(rule, POLL_S) == ([], [POLL_S])
    assert waited(rule, 1e9) == (["not_charging"], [POLL_S, POLL_S, POLL_S / 2])


def supplies(folder, **each):
    for name, texts in each.items():
        (folder / name).mkdir(parents=True)
        for attribute, text in texts.items():
            (folder / name / attribute).write_text(f"{text}\n")
    return folder


BATTERY = {"type": "Battery", "present": 1, "capacity": 64}
MAINS = {"type": "Mains", "online": 1}


@pytest.mark.parametrize(
    ("each", "expected"),
    [
        ({}, PowerState(False)),
        ({"AC": MAINS}, PowerState(False)),
        ({"mouse": BATTERY | {"scope": "Device", "status": "Discharging"}}, PowerState(False)),
        ({"BAT0": BATTERY | {"present": 0}}, PowerState(False)),
        ({"BAT0": BATTERY | {"status": "Charging"}}, PowerState(True, True, 64.0)),
        ({"BAT0": BATTERY | {"status": "Full"}}, PowerState(True, True, 64.0)),
        ({"BAT0": BATTERY | {"status": "Not charging"}}, PowerState(True, True, 64.0)),
        ({"BAT0": BATTERY | {"status": "Discharging"}, "AC": MAINS}, PowerState(True, False, 64.0)),
        ({"BAT0": BATTERY | {"status": "Unknown"}, "AC": MAINS}, PowerState(True, True, 64.0)),
        (
            {"BAT0": BATTERY, "usb": {"type": "USB", "online": 0}},
            PowerState(True, False, 64.0),
        ),
        ({"BAT0": BATTERY}, PowerState(True, None, 64.0)),
        (
            {
                "BAT0": BATTERY | {"status": "Full"},
                "BAT1": BATTERY | {"status": "Charging", "capacity": 20},
            },
            PowerState(True, True, 20.0),
        ),
        (
            {
                "BAT0": {
                    "type": "Battery",
                    "status": "Charging",
                    "charge_now": 1_500_000,
                    "charge_full": 3_000_000,
                }
            },
            PowerState(True, True, 50.0),
        ),
        ({"BAT0": {"type": "Battery", "status": "Charging"}}, PowerState(True, True, None)),
    ],
)
def test_power_is_what_linux_shows(tmp_path, each, expected):
    assert power_state(supplies(tmp_path / "power", **each)) == expected


def test_machine_without_a_folder_of_power_supplies_has_no_battery():
    assert power_state(Path("/nowhere")) == PowerState(False)


@pytest.mark.parametrize(
    ("gauge", "has_battery"),
    [("charge_laptop", True), ("phone", True), ("unplugged", False)],
)
def test_power_of_real_gauges_is_found(gauge, has_battery):
    assert power_state(GAUGES / gauge).has_battery is has_battery


def looked(tmp_path, told=None, *, age_s=0.0, **sources):
    file = None
    if told is not None:
        file = tmp_path / "conditions.json"
        file.write_text(told if isinstance(told, str) else json.dumps(told))
        os.utime(file, (NOW_S - age_s, NOW_S - age_s))
    power = supplies(tmp_path / "power", BAT0=BATTERY | {"status": "Discharging"})
    found = ConditionSources(power_supplies=power, conditions_file=file, **sources)
    return found.look(now_s=NOW_S)


def test_conditions_are_those_of_the_machine_and_of_the_configuration(tmp_path):
    found = looked(tmp_path, is_metered=True)
    assert (found.is_charging, found.battery_percent, found.is_metered) == (False, 64.0, True)
    assert found.load_per_core >= 0


def test_word_of_the_firmware_counts_before_what_linux_says(tmp_path):
    told = {"charging": True, "battery_percent": 12, "idle": True, "metered": True, "other": 1}
    found = looked(tmp_path, told)
    assert reasons(found) == ["battery_low", "metered"]
    assert (found.is_charging, found.is_idle, found.battery_percent) == (True, True, 12.0)


def test_firmware_may_tell_of_a_battery_that_linux_does_not_show(tmp_path):
    file = tmp_path / "conditions.json"
    file.write_text('{"charging": false}')
    sources = ConditionSources(power_supplies=Path("/nowhere"), conditions_file=file)
    found = sources.look(now_s=file.stat().st_mtime)
    assert reasons(found)[0] == "not_charging"


@pytest.mark.parametrize(
    ("told", "age_s"),
    [
        ("{", 0),
        ("[]", 0),
        ({"charging": "yes"}, 0),
        ({"battery_percent": True}, 0),
        ({"metered": 0}, 0),
        ({"charging": True}, FRESH_S + 1),
        ({"charging": True}, -FRESH_S - 1),
    ],
)
def test_word_of_the_firmware_that_cannot_be_believed_has_the_device_sit_out(tmp_path, told, age_s):
    found = looked(tmp_path, told, age_s=age_s)
    assert "conditions_unknown" in reasons(found)


def test_missing_word_of_the_firmware_is_no_word(tmp_path):
    sources = ConditionSources(conditions_file=tmp_path / "none", power_supplies=tmp_path)
    assert reasons(sources.look(now_s=NOW_S)) == ["conditions_unknown"]


@pytest.mark.parametrize(
    ("wait_s", "deadline_s", "waits_s"),
    [(86_400.0, 600.0, 300.0), (60.0, 600.0, 60.0), (86_400.0, 0.0, 86_400.0)],
)
def test_a_device_waits_no_longer_than_half_of_the_rounds_deadline(wait_s, deadline_s, waits_s):
    rule = replace(RULE, wait_s=wait_s).within(deadline_s)
    assert rule.wait_s == waits_s
    slept = []
    wait_until_eligible(
        lambda _: Conditions(has_battery=True, is_charging=False),
        rule,
        least_rows=1,
        sleep=slept.append,
    )
    assert sum(slept) == waits_s


def test_settings_of_a_node_are_read_by_their_names():
    assert eligibility_of({}) == (EligibilityRule(), ConditionSources())
    rule, sources = eligibility_of(
        {
            "train-needs-charging": False,
            "train-least-battery": 15,
            "train-most-load": 0.5,
            "train-metered": True,
            "train-wait-s": 600,
            "network-metered": True,
            "conditions-file": "/run/fw.json",
            "power-supplies": "/sys/other",
        }
    )
    assert rule == EligibilityRule(
        needs_charging=False,
        least_battery_percent=15.0,
        most_load_per_core=0.5,
        allows_metered=True,
        wait_s=600.0,
    )
    assert sources == ConditionSources(
        power_supplies=Path("/sys/other"), conditions_file=Path("/run/fw.json"), is_metered=True
    )


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("train-needs-charging", "yes"),
        ("train-least-battery", 101),
        ("train-least-battery", True),
        ("train-most-load", -1),
        ("train-metered", 1),
        ("train-wait-s", float("nan")),
        ("train-wait-s", 86_401),
        ("network-metered", "no"),
    ],
)
def test_setting_that_cannot_be_is_refused_by_name(key, value):
    with pytest.raises(InputError, match=key):
        eligibility_of({key: value})


@pytest.mark.parametrize("language", LANGUAGES)
def test_every_reason_has_words_in_every_language(language):
    from edge_client.eligibility import SittingOut

    texts = ledger_texts(language)
    assert set(texts["sat_out_reasons"]) == {reason.value for reason in SittingOut}
