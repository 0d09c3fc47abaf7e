"""Metrics against formulas, and what is known under censoring."""

import numpy as np
import pytest

from models.metrics import (
    average_precision,
    best_f1_threshold,
    expected_calibration_error,
    quality,
    reliability,
    roc_auc,
    windows,
)

NAN = float("nan")


def test_ranking_without_both_kinds_is_unknown():
    score = np.array([0.1, 0.2])

    assert average_precision(np.zeros(2, bool), score) is None
    assert average_precision(np.ones(2, bool), score) == 1
    assert roc_auc(np.zeros(2, bool), score) is None
    assert roc_auc(np.ones(2, bool), score) is None


def f1_at(label, score, threshold):
    alarm = score >= np.float32(threshold)
    return 2 * (alarm & label).sum() / (alarm.sum() + label.sum())


def test_a_threshold_between_neighbouring_numbers_still_parts_them():
    low = np.float32(0.5)
    for _ in range(4):
        high = np.nextafter(low, np.float32(1))
        score = np.array([high, high, low, low, low], np.float32)
        label = np.array([True, True, False, False, False])
        assert f1_at(label, score, best_f1_threshold([(label, score)])) == 1
        low = high


def test_without_a_failure_nothing_is_flagged():
    score = np.array([0.1, 0.9], np.float32)

    assert best_f1_threshold([(np.zeros(2, bool), score)]) == 1


def test_calibration_error_is_the_gap_of_each_tenth_weighted_by_its_size():
    probability = np.repeat(np.arange(10) / 10, 10)
    label = np.tile(np.arange(10) < 5, 10)
    expected = np.mean([abs(p - 0.5) for p in np.arange(10) / 10])

    assert expected_calibration_error(label, probability) == pytest.approx(expected)
    assert expected_calibration_error(label[:0], probability[:0]) is None


def test_a_calibrated_model_lies_on_the_diagonal_of_the_reliability_diagram():
    rng = np.random.default_rng(2)
    probability = rng.beta(1, 12, 60_000)
    label = rng.random(60_000) < probability
    bins = reliability(label, probability)

    assert sum(count for _, _, count in bins) == 60_000
    # Each bin holds at least 500 windows: 4 standard errors stay below 0.09.
    for mean, frequency, count in bins:
        assert abs(mean - frequency) < 4 * np.sqrt(mean * (1 - mean) / count)
    assert expected_calibration_error(label, probability) < 0.01
    assert reliability(label[:0], probability[:0]) == []


WATCHED = {"failed_at_days": np.array([100.0, NAN]), "observed_until_days": np.array([100.0, 200])}


@pytest.mark.parametrize(
    ("device", "day", "label", "known", "left"),
    [
        (0, 60, False, True, 40),
        (0, 69.9, False, True, 30.1),
        (0, 70, True, True, 30),
        (0, 99.5, True, True, 0.5),
        (0, 100, False, False, NAN),
        (0, 130, False, False, NAN),
        (1, 170, False, True, NAN),
        (1, 170.1, False, False, NAN),
        (1, 250, False, False, NAN),
    ],
)
def test_what_is_known_of_a_window(device, day, label, known, left):
    found = windows(np.array([device]), np.array([day]), horizon_days=30, **WATCHED)

    assert (found.label.tolist(), found.known.tolist()) == ([label], [known])
    assert found.days_left == pytest.approx([left], nan_ok=True)


def four_windows():
    return windows(
        np.array([0, 0, 1, 1, 1]), np.array([60.0, 90, 100, 150, 190]), horizon_days=30, **WATCHED
    )


def test_quality_counts_known_windows_alone():
    score = np.array([0.2, 0.9, 0.6, 0.1, 1.0])
    found = quality(four_windows(), probability=score, threshold=0.5)

    assert (found.num_windows, found.prevalence) == (4, 0.25)
    assert (found.precision, found.recall, found.f1) == (0.5, 1, pytest.approx(2 / 3))
    assert (found.auc, found.average_precision) == (1, 1)


def test_precision_at_other_prevalences_follows_its_formula():
    score = np.array([0.2, 0.9, 0.6, 0.1, 1.0])
    found = quality(four_windows(), probability=score, threshold=0.5)
    recall, false_alarms = 1.0, 1 / 3

    for share in (0.003, 0.01, 0.03):
        expected = recall * share / (recall * share + false_alarms * (1 - share))
        assert found.precision_at_prevalence[f"{share:g}"] == pytest.approx(expected)


def test_a_model_that_never_flags_has_no_hits_and_no_precision_to_speak_of():
    never = np.zeros(5)
    found = quality(four_windows(), probability=never, flagged=never.astype(bool))

    assert (found.precision, found.recall, found.f1) == (0, 0, 0)
    assert set(found.precision_at_prevalence.values()) == {None}


def test_errors_in_days_count_where_90_or_fewer_are_left():
    known = four_windows()
    p50 = np.array([50.0, 13, 0, 0, 0])
    found = quality(
        known,
        probability=np.zeros(5),
        days_p10=np.array([41.0, 5, 0, 0, 0]),
        days_p50=p50,
        days_p90=np.array([90.0, 20, 0, 0, 0]),
        threshold=0.5,
    )

    assert found.mae_days_when_90_or_less == pytest.approx((10 + 3) / 2)
    assert found.coverage_p10_p90 == 0.5


def test_scores_that_are_no_probabilities_have_no_calibration():
    found = quality(four_windows(), probability=np.array([-5.0, 3, 0, 0, 0]), threshold=1)

    assert found.ece is None
    assert found.mae_days_when_90_or_less is None


def test_nothing_known_is_no_figure():
    known = windows(np.array([1]), np.array([199.0]), horizon_days=30, **WATCHED)
    found = quality(known, probability=np.array([0.3]), threshold=0.5)

    assert found.num_windows == 0
    assert (found.prevalence, found.auc, found.f1, found.ece) == (None, None, None, None)
