"""What a server tells from noised counts, and what it holds back."""

import json
from dataclasses import replace

import numpy as np
import pytest

from models.feature_spec import FEATURE_NAMES
from models.held_out_devices import held_out_devices
from models.private_histograms import (
    drift_question,
    evaluation_question,
    similar_devices_question,
    spread_of,
)
from privacy import CountChannel
from privacy.counts import NoisedCounts
from server.counts.private_metrics import (
    LEAST_CELL,
    ReleasedCounts,
    devices_asked,
    drift,
    private_evaluation,
    similar_devices,
    vetoes,
)

DAY = 86_400
AS_OF = 20_000 * DAY
THRESHOLD = 0.25
NEGATIVES = np.array([9000, 4000, 2000, 1200, 800, 300, 150, 60, 25, 10], float)
POSITIVES = np.array([4, 8, 15, 30, 45, 55, 60, 65, 70, 80], float)


def evaluation(month=0, *, positives=POSITIVES, noise=4.0, version="m-1"):
    question = evaluation_question(
        as_of_s=AS_OF + 30 * month * DAY, model_version=version, threshold=THRESHOLD
    )
    found = NoisedCounts(
        counts=np.concatenate([NEGATIVES, positives]), noise_variance=noise, cohort_size=20_000
    )
    return ReleasedCounts(question, found, "ab" * 32)


def test_a_channel_asks_by_identifier_alone():
    ids = [f"d{number}" for number in range(500)]
    everyone = CountChannel(name="drift", noise_multiplier=9.0, max_answers=1)
    held_out = replace(everyone, held_out=True)

    asked = set(devices_asked(ids, held_out).tolist())
    others = set(devices_asked(ids, everyone).tolist())
    assert asked == set(np.flatnonzero(held_out_devices(ids)).tolist())
    assert asked | others == set(range(500))
    assert asked & others == set()


def test_months_are_pooled_into_figures_with_intervals():
    one = private_evaluation([evaluation()], threshold=THRESHOLD)
    year = private_evaluation([evaluation(month) for month in range(12)], threshold=THRESHOLD)

    assert set(one.figures) == {
        "auc",
        "average_precision",
        "calibration_error",
        "prevalence",
        "recall",
        "precision",
        "false_alarm_rate",
    }
    assert (year.releases, year.answers_asked) == (12, 240_000)
    for name in ("auc", "average_precision", "recall", "precision"):
        width = year.figures[name].high - year.figures[name].low
        assert width < one.figures[name].high - one.figures[name].low
        assert year.figures[name].value == pytest.approx(one.figures[name].value, abs=0.01)
    flagged = evaluation().question.bins[0].edges.index(THRESHOLD) + 1
    assert one.figures["recall"].value == pytest.approx(POSITIVES[flagged:].sum() / POSITIVES.sum())
    written = json.loads(json.dumps(year.to_json()))
    assert written["figures"]["auc"]["low"] < written["figures"]["auc"]["high"]
    assert "same bins" in written["notice"]


def test_rates_are_left_out_where_the_threshold_is_no_edge():
    assert "recall" not in private_evaluation([evaluation()], threshold=0.26).figures


@pytest.mark.parametrize(
    ("releases", "what"),
    [
        ([], "at least one"),
        ([evaluation(), evaluation(1, version="m-2")], "one model"),
        ([evaluation(), evaluation()], "counted twice"),
    ],
)
def test_releases_that_do_not_belong_together_are_refused(releases, what):
    with pytest.raises(ValueError, match=what):
        private_evaluation(releases, threshold=THRESHOLD)


def test_a_candidate_is_refused_only_beyond_doubt():
    good = private_evaluation([evaluation()], threshold=THRESHOLD)
    ranks_nothing = evaluation(positives=POSITIVES[::-1])
    worse = private_evaluation([ranks_nothing], threshold=THRESHOLD)
    drowned = private_evaluation([evaluation(noise=1e6)], threshold=THRESHOLD)

    assert vetoes(worse, good) == ["auc", "average_precision"]
    assert vetoes(good, good) == []
    assert vetoes(good, worse) == []
    assert vetoes(drowned, good) == vetoes(worse, drowned) == []
    assert not drowned.figures["auc"].is_measurable


def test_a_release_survives_its_file():
    one = evaluation()
    read = ReleasedCounts.from_json(json.loads(json.dumps(one.to_json())))

    assert read.question == one.question
    assert (read.found.counts == one.found.counts).all()
    assert (read.found.noise_variance, read.entry_hash) == (4.0, "ab" * 32)
    for broken in ({"counts": [1]}, {"question": "{}"}, {"counts": None}):
        with pytest.raises(ValueError):
            ReleasedCounts.from_json(one.to_json() | broken)
    with pytest.raises(ValueError, match="release"):
        ReleasedCounts.from_json({})


def test_small_cells_of_similar_devices_are_held_back():
    question = similar_devices_question(as_of_s=AS_OF)
    cells = question.size // 2
    counts = np.zeros(question.size)
    counts[0], counts[cells] = 300.0, 700.0
    counts[1], counts[cells + 1] = 25.0, 15.0
    found = NoisedCounts(counts=counts, noise_variance=100.0, cohort_size=5000)
    told = similar_devices(ReleasedCounts(question, found, ""))

    assert len(told) == cells
    assert told[0].devices == 1000
    assert told[0].failed.value == pytest.approx(0.7)
    assert told[0].failed.low < 0.7 < told[0].failed.high
    assert all(cell.devices is None for cell in told[1:])
    assert str(LEAST_CELL) in told[1].failed.why_not
    with pytest.raises(ValueError, match="similar"):
        similar_devices(evaluation())


def test_drift_is_told_against_public_rows():
    rng = np.random.default_rng(3)
    rows = rng.normal(size=(5000, len(FEATURE_NAMES)))
    question = drift_question(rows, as_of_s=AS_OF, names=["health_margin", "temp_spread"])
    reference = spread_of(question, rows)
    counts = 8000 * np.concatenate([reference["health_margin"], [0.5, 0.3, 0.1, 0.05, 0.05, 0]])
    found = NoisedCounts(counts=counts, noise_variance=400.0, cohort_size=8000)
    told = drift(ReleasedCounts(question, found, ""), reference)

    assert told["health_margin"].low == 0.0
    assert told["temp_spread"].low > 0.3
    with pytest.raises(ValueError, match="must have 6 shares"):
        drift(ReleasedCounts(question, found, ""), reference | {"temp_spread": [1.0]})
    with pytest.raises(ValueError, match="of drift"):
        drift(evaluation(), reference)
