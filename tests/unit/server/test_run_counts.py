"""Which counts a run asks, when, and what it tells of the answers."""

import json
import threading
from datetime import UTC, datetime, timedelta

import numpy as np
import pytest

from models.feature_spec import FEATURES
from models.private_histograms import drift_question
from models.telemetry import SECONDS_PER_DAY
from models.wire.counts import Bins, CountKind
from privacy.counts import NoisedCounts
from server.counts.private_metrics import ReleasedCounts
from server.counts.run_counts import (
    COUNTS_REPORT,
    CountsFileError,
    CountsPlan,
    DriftReference,
    RunCounts,
    cell_told,
    figures_of,
    is_due,
    kept_counts,
)
from server.engine.rounds import RoundsError
from simulations.drift_reference import reference_of
from tests.support.stream_policies import stream_policy

NOW = datetime(2026, 6, 1, 12, tzinfo=UTC)
TODAY_S = int(NOW.timestamp()) // SECONDS_PER_DAY * SECONDS_PER_DAY
REFERENCE = DriftReference((Bins("usage_intensity", (3.0,)),), {"usage_intensity": (0.5, 0.5, 0.0)})
ALL = CountsPlan(model_version="m-1", drift=REFERENCE, asks_similar_devices=True)


def released(question, counts=None, *, variance=4.0):
    counts = np.zeros(question.size) if counts is None else np.array(counts, np.float64)
    found = NoisedCounts(counts=counts, noise_variance=variance, cohort_size=9_000)
    return ReleasedCounts(question, found, "ab" * 32)


def asked(plan=ALL, *, now=NOW):
    return plan.questions(now)[0]


class Devices:
    """Answers zeros to every channel but those that it refuses, and notes what it was asked."""

    def __init__(self, *refused):
        self.asked, self.refused = [], refused

    def __call__(self, channel, question):
        self.asked.append(channel)
        if channel in self.refused:
            raise RoundsError(f"the channel {channel!r} is spent")
        return released(question)


def counts_of(folder, devices, *, plan=ALL, stop=None):
    return RunCounts(
        plan=plan,
        folder=folder,
        policy=stream_policy(),
        release=devices,
        clock=lambda: NOW,
        stop=stop or threading.Event(),
    )


def told_in(folder):
    return json.loads((folder / COUNTS_REPORT).read_text(encoding="utf-8"))


def test_moments_lie_so_far_back_that_outcomes_are_known():
    days_ago = {name: (TODAY_S - q.as_of_s) / SECONDS_PER_DAY for name, q in asked().items()}

    assert days_ago == {"metrics": 45, "drift": 0, "similar_devices": 75}


def test_what_is_not_named_is_not_asked_and_said_so(tmp_path):
    devices = Devices()
    counts_of(tmp_path, devices, plan=CountsPlan()).ask()

    assert devices.asked == []
    assert "model-version" in told_in(tmp_path)["not_asked"]["metrics"]
    assert "drift-reference" in told_in(tmp_path)["not_asked"]["drift"]
    assert told_in(tmp_path)["not_asked"]["similar_devices"] == "similar-devices is 0"


@pytest.mark.parametrize(
    ("every", "turns"), [(0, []), (1, [0, 1, 2, 3, 4, 5]), (2, [1, 3, 5]), (4, [3])]
)
def test_counts_are_asked_every_so_many_rounds(every, turns):
    plan = CountsPlan(every=every)

    assert [index for index in range(6) if plan.is_turn(index)] == turns


def test_a_turn_that_never_comes_is_refused():
    with pytest.raises(ValueError, match="metrics-every must be at least 0, got -1"):
        CountsPlan(every=-1)


@pytest.mark.parametrize(("channel", "days"), [("metrics", 30), ("drift", 91)])
def test_nothing_is_asked_again_before_its_turn(channel, days):
    before = [released(asked()[channel])]
    late = asked(now=NOW + timedelta(days=days))[channel]
    early = asked(now=NOW + timedelta(days=days - 1))[channel]

    assert is_due(late, before)
    assert not is_due(early, before)
    other = CountsPlan(model_version="m-2")
    assert is_due(asked(other)["metrics"], before)


def test_each_release_is_kept_before_the_next_and_a_resumed_run_goes_on_from_them(tmp_path):
    devices = Devices("drift")
    counts_of(tmp_path, devices).ask()
    assert devices.asked == ["metrics", "drift", "similar_devices"]
    assert len(kept_counts(tmp_path)) == 2
    assert told_in(tmp_path)["not_asked"] == {"drift": "the channel 'drift' is spent"}

    again = Devices()
    counts_of(tmp_path, again).ask()
    assert again.asked == ["drift"]
    why = told_in(tmp_path)["not_asked"]
    assert why["metrics"] == "was asked of a moment less than 30 days before"
    assert len(told_in(tmp_path)["releases"]) == 3


def test_a_run_that_is_stopped_asks_nothing_more_that_it_would_be_charged_for(tmp_path):
    devices, stop = Devices(), threading.Event()

    def answer_and_stop(channel, question):
        stop.set()
        return devices(channel, question)

    counts_of(tmp_path, answer_and_stop, stop=stop).ask()

    assert devices.asked == ["metrics"]
    why = told_in(tmp_path)["not_asked"]
    assert why == dict.fromkeys(("drift", "similar_devices"), "the run was stopped")


def test_a_broken_file_of_counts_is_told(tmp_path):
    (tmp_path / COUNTS_REPORT).write_text('{"releases": [{}]}', encoding="utf-8")
    with pytest.raises(CountsFileError, match=r"counts\.json: cannot be read"):
        counts_of(tmp_path, Devices())


def test_every_figure_has_its_interval_or_why_there_is_none():
    question = asked()["metrics"]
    half = question.size // 2
    alive = np.linspace(4000, 100, half)
    failed = np.linspace(10, 400, half)
    told = figures_of([released(question, [*alive, *failed])], reference=None)
    (evaluation,) = told["evaluations"]
    auc = evaluation["figures"]["auc"]
    assert auc["low"] < auc["value"] < auc["high"]
    assert auc["in_words"] == f"{auc['value']:.3f}, {auc['low']:.3f} to {auc['high']:.3f}"
    assert "bins" in evaluation["notice"]

    (nothing,) = figures_of([released(question)], reference=None)["evaluations"]
    assert all(
        figure["value"] is None and figure["in_words"].startswith("not measurable: ")
        for figure in nothing["figures"].values()
    )


def test_evaluations_of_one_model_are_pooled_and_of_two_are_not():
    later = asked(now=NOW + timedelta(days=30))["metrics"]
    other = asked(CountsPlan(model_version="m-2"))["metrics"]
    told = figures_of([released(q) for q in (asked()["metrics"], later, other)], reference=None)

    assert [(e["model_version"], e["releases"]) for e in told["evaluations"]] == [
        ("m-1", 2),
        ("m-2", 1),
    ]


def test_drift_is_told_against_the_bins_that_were_asked_alone():
    release = released(asked()["drift"], [7000, 2000, 0])
    told = figures_of([release], reference=REFERENCE)["drift"]["usage_intensity"]
    assert told["value"] == pytest.approx(7 / 9 - 0.5, abs=0.01)
    assert told["low"] > 0

    other = DriftReference((Bins("usage_intensity", (4.0,)),), REFERENCE.shares)
    assert figures_of([release], reference=other)["drift"] is None


def test_cells_of_similar_devices_are_told_by_their_bounds():
    question = asked()["similar_devices"]
    counts = np.zeros(question.size)
    counts[0], counts[question.size // 2] = 900, 100
    told = figures_of([released(question, counts)], reference=None)["similar_devices"]

    assert told[0]["cell"] == {
        "charge_capacity_remaining": [None, 0.7],
        "capacity_slope_30d": [None, -0.1],
    }
    assert (told[0]["devices"], told[1]["devices"]) == (1000, None)
    assert told[0]["failed"]["value"] == pytest.approx(0.1, abs=0.01)
    assert cell_told(question, len(told) - 1) == {
        "charge_capacity_remaining": [0.9, None],
        "capacity_slope_30d": [-0.02, None],
    }


def test_reference_of_public_rows_is_written_and_read(tmp_path):
    rows = np.random.default_rng(5).normal(size=(400, len(FEATURES)))
    reference = reference_of(rows)
    path = tmp_path / "reference.json"
    path.write_text(json.dumps(reference.to_json()), encoding="utf-8")

    assert DriftReference.read(path) == reference
    asks = asked(CountsPlan(drift=reference))["drift"]
    assert asks.kind is CountKind.DRIFT
    assert asks.bins == drift_question(rows, as_of_s=0).bins


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"[]",
        b'{"bins": [], "shares": 3}',
        b'{"bins": [{"name": "usage_intensity", "edges": [3]}], "shares": {}}',
        b'{"bins": [{"name": "health_margin", "edges": [3]}], "shares": {"health_margin": [1]}}',
        b'{"bins": [], "shares": {}}',
    ],
)
def test_a_file_that_is_no_reference_is_refused(tmp_path, content):
    (tmp_path / "reference.json").write_bytes(content)
    with pytest.raises(CountsFileError, match=r"reference\.json: holds no reference for drift"):
        DriftReference.read(tmp_path / "reference.json")
