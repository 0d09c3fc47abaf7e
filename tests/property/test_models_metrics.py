"""Ranking and thresholds against scikit-learn and against every threshold there is."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.metrics import average_precision, best_f1_threshold, roc_auc


@st.composite
def scored(draw):
    size = draw(st.integers(2, 60))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    label = rng.random(size) < draw(st.sampled_from([0.1, 0.5]))
    label[0], label[1] = True, False
    levels = draw(st.sampled_from([2, 5, 1000]))
    return label, (rng.integers(0, levels, size) / levels).astype(np.float32)


@pytest.mark.slow
@given(scored())
def test_ranking_metrics_equal_scikit_learn_also_with_ties(case):
    from sklearn.metrics import average_precision_score, roc_auc_score

    label, score = case

    assert average_precision(label, score) == pytest.approx(average_precision_score(label, score))
    assert roc_auc(label, score) == pytest.approx(roc_auc_score(label, score))


def f1_at(label, score, threshold):
    alarm = score >= np.float32(threshold)
    return 2 * (alarm & label).sum() / (alarm.sum() + label.sum())


@given(scored())
def test_the_threshold_has_the_best_f1_of_all_thresholds(case):
    label, score = case
    best = max(f1_at(label, score, threshold) for threshold in np.unique(score))

    assert f1_at(label, score, best_f1_threshold([(label, score)])) == pytest.approx(best)


@given(st.lists(scored(), min_size=1, max_size=4))
def test_the_threshold_has_the_best_mean_f1_however_large_each_part_is(parts):
    def mean_f1(threshold):
        return np.mean([f1_at(label, score, threshold) for label, score in parts])

    best = max(mean_f1(threshold) for _, score in parts for threshold in np.unique(score))

    assert mean_f1(best_f1_threshold(parts)) == pytest.approx(best)
