"""Noise on reported bands, from the setting to the message: drawn once, kept, shown."""

import json
from fractions import Fraction

import pytest

from edge_client.band_noise import (
    NEIGHBORING_RELATION,
    NOT_COVERED,
    UNIT_OF_PRIVACY,
    noise_state,
)
from edge_client.cli import main
from edge_client.client import EdgeClient
from edge_client.store.mailbox import Purpose
from edge_client.telemetry_store import TelemetryStore
from models.wire.codec import decode, encode
from models.wire.messages import Summary
from tests.support.edge_devices import NOW, fading_life, new_store

AT_NOW = ("--now", NOW.isoformat())
BANDS = ("urgency", "flagged", "days_band", "probability_band", "health_band", "confidence")


@pytest.fixture
def device(tmp_path):
    with new_store(tmp_path) as store:
        store.record_many(fading_life(), now=NOW)
        store.set_consent(Purpose.SUMMARIES, granted=True, now=NOW)
    return store.path


def told(path, epsilon):
    with EdgeClient(path, band_epsilon=epsilon) as client:
        client.predict(NOW)
        summary = client.summary(NOW)
        assert decode(encode(summary), Summary) == summary
        return {name: getattr(summary, name) for name in (*BANDS, "primary_issue")}


def outbox(path, capsys, *more):
    assert main(["outbox", "--json", *AT_NOW, "--store", str(path), *more]) == 0
    return json.loads(capsys.readouterr().out)


def test_without_the_setting_the_true_bands_leave_and_nothing_is_kept(device, capsys):
    true = told(device, None)
    assert true["days_band"] == "7_to_30"
    assert outbox(device, capsys)["noise"] is None
    with TelemetryStore(device) as store:
        assert noise_state(store).draws == ()


def test_an_answer_outlives_the_process_and_is_told_again(device):
    first = told(device, Fraction(1, 100))
    assert all(told(device, Fraction(1, 100)) == first for _ in range(5))
    with TelemetryStore(device) as store:
        assert {draw.field for draw in noise_state(store).draws} == {
            "risk",
            "health",
            "confidence",
            "issue",
        }


def test_with_little_noise_the_truth_is_told_with_its_likely_band_of_probability(device):
    """Four draws at ε = 16 tell the truth but once in 500,000 runs."""
    true, drawn = told(device, None), told(device, Fraction(16))
    del true["probability_band"], drawn["probability_band"]
    assert drawn == true


def test_what_the_owner_sees_is_what_leaves_with_what_it_has_cost(device, capsys):
    shown = outbox(device, capsys, "--band-epsilon", "0.5")
    fields = {field["name"]: field["value"] for field in shown["next_summary"]}
    assert {name: fields[name] for name in BANDS} == {
        name: value for name, value in told(device, Fraction(1, 2)).items() if name in BANDS
    }
    assert shown["noise"] == {
        "epsilon": "0.5",
        "draws": 4,
        "epsilon_spent": "2",
        "epsilon_spent_this_year": "2",
        "epsilon_at_most_a_year": "7.5",
        "delta": "0",
        "unit_of_privacy": UNIT_OF_PRIVACY,
        "neighboring_relation": NEIGHBORING_RELATION,
        "assumptions": [NOT_COVERED],
    }
    assert main(["outbox", *AT_NOW, "--store", str(device), "--band-epsilon", "0.5"]) == 0
    said = capsys.readouterr().out
    assert "what is said is drawn, with epsilon 0.5 a draw, at delta 0" in said
    assert all(one in said for one in (UNIT_OF_PRIVACY, NEIGHBORING_RELATION, NOT_COVERED))


def test_draws_are_part_of_the_export_and_go_with_the_store(device, capsys):
    told(device, Fraction(2))
    assert main(["export", "--store", str(device)]) == 0
    assert len(json.loads(capsys.readouterr().out)["facts"]["band_noise"]["draws"]) == 4


def test_a_setting_that_protects_nothing_is_refused_in_one_line(device, capsys):
    assert main(["outbox", *AT_NOW, "--store", str(device), "--band-epsilon", "0"]) == 3
    assert capsys.readouterr().err.count("\n") == 1
