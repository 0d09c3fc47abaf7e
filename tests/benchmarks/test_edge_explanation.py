"""Is one exact explanation as cheap as running its coalitions, and cheaper than shap's exact one?

Rounds are interleaved; a ratio is that of its own round, so that what else the machine does hits
both sides. Times are CPU times of this thread, which is the only one that works.
"""

from __future__ import annotations

import statistics
import time
from typing import TYPE_CHECKING

import numpy as np
import onnxruntime
import pytest

from models import explanation
from models.bundle import load_bundle
from models.counterfactual import Estimate, Search, find_counterfactual
from models.explanation import log_odds, shapley_values
from models.feature_spec import FEATURE_NAMES, GROUPS, group_index
from models.inference import Predictor
from tests.support.figures import Figures
from tests.support.fleets import simulated_rows

if TYPE_CHECKING:
    from collections.abc import Callable

FIGURES = Figures("edge")
ROUNDS = 31
PROBABILITY = "failure_probability_30d"


@pytest.fixture(scope="module")
def predictor():
    made = Predictor(load_bundle())
    made.outputs(np.zeros((1, len(group_index())), np.float32))
    return made


def bare_session(predictor):
    """Return a session of the same bundle, with the options that a device uses."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    return onnxruntime.InferenceSession(
        predictor.bundle.model_bytes, options, providers=["CPUExecutionProvider"]
    )


def complete_rows(count):
    """Rows of simulated devices in which every group is measured and differs from the reference.

    They are the costliest: a group that does not differ halves our runs.
    """
    features, shutdowns = simulated_rows().features, FEATURE_NAMES.index("unexpected_shutdowns")
    whole = features[~np.isnan(features).any(axis=1) & (features[:, shutdowns] > 0)]
    return whole[:: max(len(whole) // count, 1)][:count].copy()


def seconds(action: Callable[[], object], repeats: int) -> float:
    started = time.thread_time()
    for _ in range(repeats):
        action()
    return (time.thread_time() - started) / repeats


def interleaved(first: tuple, second: tuple) -> tuple[list[float], list[float]]:
    """Time two actions with their repeats in turns; the order changes from round to round."""
    times: tuple[list[float], list[float]] = ([], [])
    for number in range(ROUNDS):
        for side in (0, 1) if number % 2 else (1, 0):
            action, repeats = (first, second)[side]
            times[side].append(seconds(action, repeats))
    return times


@pytest.mark.parametrize(
    "name", ["first exact explanation of a process", "exact explanation of a process that stays"]
)
def test_an_explanation_costs_little_more_than_running_its_256_coalitions(predictor, name):
    row = complete_rows(1)
    batch = np.repeat(complete_rows(64), 4, axis=0)[:256]
    session = bare_session(predictor)

    def explain():
        if name.startswith("first"):
            explanation._RUNNERS.pop(predictor, None)
        shapley_values(predictor, row)

    def run():
        session.run([PROBABILITY], {"features": batch})

    explain(), explain(), run()
    assert len(batch) == 256
    ours, bare = interleaved((explain, 40), (run, 40))
    ratios = sorted(a / b for a, b in zip(ours, bare, strict=True))
    ratio = statistics.median(ratios)
    print(f"{name}: {1e6 * statistics.median(ours):.0f} µs")
    FIGURES.add(
        f"{name}, against one 256-row run",
        ratio,
        unit="ratio",
        target=1.5,
        better="lower",
        spread=(ratios[0], ratios[-1]),
        against="session.run of 256 rows of the same bundle, in the same rounds",
    )
    assert ratio <= 1.5


def test_an_explanation_is_far_quicker_than_shap_s_exact_one_and_equal(predictor):
    shap = pytest.importorskip("shap", reason="shap is not installed: pip install 'fedcell[dev]'")
    rows = complete_rows(5)
    own_of_group = np.array(group_index())
    reference = predictor.bundle.explanation_reference

    def explainer_of(row):
        """Return shap's ExactExplainer whose eight players are our feature groups."""

        def coalition_features(mask, _players):
            return (np.where(mask[own_of_group], row, reference)[None, :].astype(np.float32),)

        def value(features):
            return log_odds(predictor.outputs(features, [PROBABILITY])[PROBABILITY])

        coalition_features.shape = (1, len(GROUPS))
        coalition_features.clustering = None
        return shap.explainers.ExactExplainer(value, coalition_features)

    players = np.ones((1, len(GROUPS)))
    worst = 0.0
    for row in rows:
        theirs = explainer_of(row)(players).values[0]
        worst = max(worst, float(np.abs(theirs - shapley_values(predictor, row[None])[0]).max()))
    explainer, one = explainer_of(rows[0]), rows[:1]
    ours, theirs = interleaved(
        (lambda: shapley_values(predictor, one), 40), (lambda: explainer(players), 3)
    )
    ratios = sorted(b / a for a, b in zip(ours, theirs, strict=True))
    ratio = statistics.median(ratios)
    FIGURES.add(
        "exact explanation, times quicker than shap",
        ratio,
        unit="ratio",
        target=30.0,
        better="higher",
        spread=(ratios[0], ratios[-1]),
        against=f"shap {shap.__version__} ExactExplainer on the same 8 groups, in the same rounds",
    )
    FIGURES.add(
        "exact explanation, largest difference from shap",
        worst,
        unit="log-odds",
        target=1e-6,
        better="lower",
        against=f"shap {shap.__version__} ExactExplainer on {len(rows)} devices",
    )
    assert worst <= 1e-6
    assert ratio >= 30


def test_a_search_for_a_change_is_cheaper_than_a_256_row_run(predictor):
    rows = complete_rows(400)
    said = predictor.predict(rows)
    days = said.days_to_failure_p50.astype(float)
    asked = np.flatnonzero((days >= 7) & (days < 365))
    row, now = rows[asked[0]], Estimate(float(days[asked[0]]), 0.5)

    def search():
        return find_counterfactual(predictor, row, chemistry="NMC111", now=now)

    session, batch = bare_session(predictor), np.repeat(row[None], 256, axis=0)

    def run():
        session.run([PROBABILITY], {"features": batch})

    assert search().search in {Search.FOUND, Search.NOT_FOUND}
    run()
    ours, theirs = interleaved((search, 40), (run, 40))
    ratios = sorted(a / b for a, b in zip(ours, theirs, strict=True))
    ratio = statistics.median(ratios)
    FIGURES.add(
        "search for a change, against one 256-row run",
        ratio,
        unit="ratio",
        target=1.0,
        better="lower",
        spread=(ratios[0], ratios[-1]),
        against="session.run of 256 rows of the same bundle, in the same rounds",
    )
    assert ratio <= 1.0
