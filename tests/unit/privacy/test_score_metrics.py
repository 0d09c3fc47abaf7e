"""Quality from histograms: without noise as from scores, under noise with intervals that hold."""

from statistics import NormalDist

import numpy as np
import pytest

from models import metrics
from privacy.count_intervals import STANDS_OUT
from privacy.counts import NoisedCounts
from privacy.score_metrics import (
    ScoreHistogram,
    _precision_by_recall,
    average_precision,
    calibration_error,
    false_alarm_rate,
    precision_from,
    prevalence,
    recall_from,
    roc_auc,
)

BINS = 10
NORMAL = NormalDist()
CUTS = [NORMAL.inv_cdf(q) for q in (0.5, 0.75, 0.875, 0.94, 0.97, 0.985, 0.992, 0.996, 0.998)]


def exact(negatives, positives):
    return ScoreHistogram(
        negatives=np.array(negatives, float),
        positives=np.array(positives, float),
        noise_variance=0.0,
    )


def test_without_noise_figures_are_those_of_the_binned_scores():
    rng = np.random.default_rng(1)
    label = rng.random(40_000) < 0.05
    score = np.clip(rng.normal(3.5 + 3.0 * label, 2.5), 0, BINS - 1).astype(int)
    histogram = exact(
        np.bincount(score[~label], minlength=BINS), np.bincount(score[label], minlength=BINS)
    )
    flagged = score >= 5

    assert roc_auc(histogram).value == pytest.approx(metrics.roc_auc(label, score))
    assert average_precision(histogram).value == pytest.approx(
        metrics.average_precision(label, score)
    )
    assert recall_from(histogram, 5).value == pytest.approx(flagged[label].mean())
    assert precision_from(histogram, 5).value == pytest.approx(label[flagged].mean())
    assert false_alarm_rate(histogram, 5).value == pytest.approx(flagged[~label].mean())
    assert prevalence(histogram).value == pytest.approx(label.mean())
    with pytest.raises(ValueError, match="first_bin"):
        recall_from(histogram, BINS)


def test_a_model_that_keeps_its_word_has_no_calibration_error():
    edges, counts = [0.1, 0.3], np.array([10_000.0, 5000.0, 2000.0])
    kept = exact(counts * [0.95, 0.8, 0.4], counts * [0.05, 0.2, 0.6])
    broken = exact(counts * [0.75, 0.8, 0.4], counts * [0.25, 0.2, 0.6])

    assert calibration_error(kept, edges).low == 0.0
    assert calibration_error(kept, edges).value == 0.0
    expected = 10 / 17 * 0.15
    found = calibration_error(broken, edges)
    assert found.low <= expected <= found.high
    assert found.low > 0.0


def test_failures_that_drown_in_noise_are_not_measurable():
    """1,000 held-out devices at 1 %: ten positives against noise of 13 in each bin."""
    histogram = ScoreHistogram.of(
        NoisedCounts(
            counts=np.concatenate([np.full(BINS, 99.0), np.full(BINS, 1.0)]),
            noise_variance=169.0,
            cohort_size=1000,
        )
    )

    for found in (roc_auc(histogram), average_precision(histogram), recall_from(histogram, 5)):
        assert found.value is None
        assert "noise" in found.why_not


def test_more_releases_of_the_same_devices_widen_what_those_that_live_on_say():
    once = exact(np.full(BINS, 1000.0), np.full(BINS, 1000.0))
    often = ScoreHistogram(
        negatives=once.negatives, positives=once.positives, noise_variance=0.0, releases=12
    )

    assert roc_auc(often).high - roc_auc(often).low > roc_auc(once).high - roc_auc(once).low


def score_shares(auc):
    shift = np.sqrt(2) * NORMAL.inv_cdf(auc)
    lived = np.diff([0.0, *(NORMAL.cdf(cut) for cut in CUTS), 1.0])
    failed = np.diff([0.0, *(NORMAL.cdf(cut - shift) for cut in CUTS), 1.0])
    return lived, failed


def misses(*, devices, share, auc, noise_multiplier, releases, repetitions, seed):
    """Share of repetitions in which a figure was told and its interval missed the truth.

    Those that live on fall into one bin in every release: the worst case of repeated answers.
    """
    rng = np.random.default_rng(seed)
    lived, failed = score_shares(auc)
    variance = noise_multiplier**2 * releases
    truths = {
        roc_auc: failed @ (np.cumsum(lived) - lived / 2),
        prevalence: share,
        recall: failed[6:].sum(),
        precision: share
        * failed[6:].sum()
        / (share * failed[6:].sum() + (1 - share) * lived[6:].sum()),
        alarms: lived[6:].sum(),
    }
    told, missed = dict.fromkeys([*truths, average_precision], 0), {}
    missed = dict(told)
    for _ in range(repetitions):
        noise = rng.normal(0, np.sqrt(variance), (2, BINS)).round()
        histogram = ScoreHistogram(
            negatives=rng.multinomial(round(devices * (1 - share)), lived) * releases + noise[0],
            positives=rng.poisson(devices * share * releases * failed) + noise[1],
            noise_variance=variance,
            releases=releases,
        )
        for figure, truth in (truths | {average_precision: true_ap(histogram, share, auc)}).items():
            found = figure(histogram)
            told[figure] += found.is_measurable
            missed[figure] += found.is_measurable and not found.low <= truth <= found.high
    return (
        {figure: count / repetitions for figure, count in told.items()},
        {figure: count / repetitions for figure, count in missed.items()},
    )


def recall(histogram):
    return recall_from(histogram, 6)


def precision(histogram):
    return precision_from(histogram, 6)


def alarms(histogram):
    return false_alarm_rate(histogram, 6)


def true_ap(histogram, share, auc):
    """The truth over the bins that the estimate is over: the top ones may count as one."""
    lived, failed = score_shares(auc)
    total = (histogram.positives + histogram.negatives)[::-1].cumsum()
    spread = np.sqrt(
        (histogram.variance_of_positives + histogram.variance_of_negatives)[::-1].cumsum()
    )
    faint = np.flatnonzero(total <= STANDS_OUT * spread)
    top = min(int(faint[-1]) + 1 if len(faint) else 0, BINS - 1)
    counts = np.concatenate([failed[::-1] * share, lived[::-1] * (1 - share)])
    return float(_precision_by_recall(counts[None, :], top)[0])


SETTINGS = {
    "a large fleet, two years": {
        "devices": 10_000, "share": 0.01, "auc": 0.85, "noise_multiplier": 13.0, "releases": 24,
    },
    "a good model, one release": {
        "devices": 20_000, "share": 0.02, "auc": 0.95, "noise_multiplier": 2.65, "releases": 1,
    },
    "a small fleet, two years": {
        "devices": 2000, "share": 0.01, "auc": 0.85, "noise_multiplier": 13.0, "releases": 24,
    },
    "hardly any noise, few failures": {
        "devices": 2000, "share": 0.03, "auc": 0.98, "noise_multiplier": 1.0, "releases": 1,
    },
}  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("setting", SETTINGS)
def test_intervals_that_are_told_miss_in_five_percent_and_a_tolerance(setting):
    """Tolerance: 3 % for normal approximations, and 4 standard errors of 300 repetitions."""
    told, missed = misses(**SETTINGS[setting], repetitions=300, seed=7)

    assert max(missed.values()) <= 0.05 + 0.03 + 4 * np.sqrt(0.05 * 0.95 / 300)
    if "large" in setting:
        assert told[roc_auc] == 1.0


@pytest.mark.soak
@pytest.mark.parametrize("setting", SETTINGS)
def test_intervals_that_are_told_miss_in_five_percent_and_little_more(setting):
    """Tolerance: 2 % for normal approximations, and 4 standard errors of 20,000 repetitions."""
    _, missed = misses(**SETTINGS[setting], repetitions=20_000, seed=8)

    assert max(missed.values()) <= 0.05 + 0.02 + 4 * np.sqrt(0.05 * 0.95 / 20_000)
