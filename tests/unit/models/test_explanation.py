"""Shapley values against their axioms and a brute-force oracle."""

import gc
import weakref
from itertools import permutations
from math import comb, factorial

import numpy as np
import pytest

from models.bundle import load_bundle
from models.coalition_session import CoalitionSession
from models.explanation import shapley_values, top_reasons
from models.feature_spec import FEATURE_NAMES, FEATURES, GROUPS, NUM_FEATURES
from models.inference import Predictor
from tests.support.fleets import random_bundle, simulated_rows

GROUP_OF = np.array([GROUPS.index(feature.group) for feature in FEATURES])


@pytest.fixture(scope="module")
def predictor():
    return Predictor(random_bundle())


def rows(count=6):
    features = simulated_rows().features
    return features[:: len(features) // count][:count].copy()


def log_odds(predictor, features):
    probability = predictor.outputs(features)["failure_probability_30d"].astype(float)
    probability = np.clip(probability, 1e-6, 1 - 1e-6)
    return np.log(probability / (1 - probability))


def mixed(predictor, own, joined):
    """Take the groups `joined` from the device and the others from the reference."""
    other = np.where(np.isnan(own), np.nan, predictor.bundle.explanation_reference)
    return np.where(np.isin(GROUP_OF, list(joined)), own, other).astype(np.float32)


@pytest.mark.parametrize("name", ["default", "random"])
def test_contributions_add_up_to_what_the_device_differs_from_the_reference(name):
    predictor = Predictor(load_bundle() if name == "default" else random_bundle())
    features = rows(20)
    values = shapley_values(predictor, features)
    nobody = np.stack([mixed(predictor, own, ()) for own in features])
    expected = log_odds(predictor, features) - log_odds(predictor, nobody)

    assert values.sum(axis=1) == pytest.approx(expected, abs=1e-5)


def test_contributions_are_the_mean_over_all_orders_in_which_groups_can_join(predictor):
    orders = np.array(list(permutations(range(len(GROUPS)))))
    for own in rows(2):
        coalitions = np.arange(256)
        members = [[g for g in range(len(GROUPS)) if c >> g & 1] for c in coalitions]
        value = log_odds(predictor, np.stack([mixed(predictor, own, m) for m in members]))
        expected = np.zeros(len(GROUPS))
        joined = np.zeros(len(orders), int)
        for place in range(len(GROUPS)):
            after = joined | 1 << orders[:, place]
            np.add.at(expected, orders[:, place], value[after] - value[joined])
            joined = after
        expected /= factorial(len(GROUPS))

        assert shapley_values(predictor, own[None])[0] == pytest.approx(expected, abs=1e-6)


def test_groups_that_the_model_does_not_see_contribute_nothing(predictor):
    values = shapley_values(predictor, rows())

    assert values[:, GROUPS.index("age")] == pytest.approx(0, abs=1e-9)
    assert np.abs(values[:, GROUPS.index("capacity_trend")]).max() > 0.01


def test_what_was_not_measured_explains_nothing(predictor):
    features = rows()
    features[:, GROUPS.index("resistance") == GROUP_OF] = np.nan
    features[:, GROUPS.index("charging") == GROUP_OF] = np.nan
    values = shapley_values(predictor, features)

    assert values[:, GROUPS.index("resistance")] == pytest.approx(0, abs=1e-9)
    assert values[:, GROUPS.index("charging")] == pytest.approx(0, abs=1e-9)


def test_the_reference_itself_needs_no_explanation(predictor):
    reference = predictor.bundle.explanation_reference[None]

    assert shapley_values(predictor, reference) == pytest.approx(0, abs=1e-9)


@pytest.mark.parametrize(
    ("equal", "num_rows"), [((), 256), (("shutdowns",), 128), (("shutdowns", "usage"), 64)]
)
def test_the_first_device_is_one_run_of_the_coalitions_of_what_differs(
    monkeypatch, equal, num_rows
):
    predictor, runs = Predictor(random_bundle()), []
    outputs = predictor.outputs
    reference = predictor.bundle.explanation_reference
    own = reference + 0.01 * np.maximum(np.abs(reference), 1)
    is_equal = np.isin(GROUP_OF, [GROUPS.index(group) for group in equal])
    monkeypatch.setattr(
        predictor, "outputs", lambda x, names=None: runs.append(x.shape) or outputs(x, names)
    )
    values = shapley_values(predictor, np.where(is_equal, reference, own)[None].astype(np.float32))

    assert runs == [(num_rows, NUM_FEATURES)]
    assert (values[0, [GROUPS.index(group) for group in equal]] == 0).all()


def test_leaving_out_what_does_not_differ_changes_no_value(predictor):
    own = rows(1)
    shutdowns = np.array([name.startswith("unexpected") for name in FEATURE_NAMES])
    own[:, shutdowns] = predictor.bundle.explanation_reference[shutdowns]
    coalitions = np.arange(256)
    members = [[g for g in range(len(GROUPS)) if c >> g & 1] for c in coalitions]
    value = log_odds(predictor, np.stack([mixed(predictor, own[0], m) for m in members]))
    group = GROUPS.index("charging")
    size = np.array([len(m) for m in members])
    without = coalitions >> group & 1 == 0
    weight = 1 / (8 * np.array([comb(7, int(s)) if s < 8 else 1 for s in size]))
    gain = value[coalitions[without] | 1 << group] - value[without]

    found = shapley_values(predictor, own)[0]
    assert found[group] == pytest.approx((weight[without] * gain).sum(), abs=1e-9)
    assert found.sum() == pytest.approx(value[-1] - value[0], abs=1e-9)


def test_many_devices_are_explained_as_each_alone(predictor):
    features = rows(70)
    together = shapley_values(predictor, features)

    assert together.shape == (70, len(GROUPS))
    for row in (0, 63, 64, 69):
        alone = shapley_values(predictor, features[row : row + 1])[0]
        assert together[row] == pytest.approx(alone, abs=1e-6)
    assert shapley_values(predictor, features[:0]).shape == (0, len(GROUPS))


def test_the_top_three_are_named_with_direction_and_share():
    values = np.zeros(len(GROUPS))
    values[[0, 2, 3, 5]] = [-3.0, 0.02, 6.0, 1.0]
    found = [(reason.code, reason.share) for reason in top_reasons(values)]

    assert found == [
        ("resistance.raises", pytest.approx(6 / 10.02, abs=1e-4)),
        ("capacity_level.lowers", pytest.approx(3 / 10.02, abs=1e-4)),
        ("shutdowns.raises", pytest.approx(1 / 10.02, abs=1e-4)),
    ]


def test_parts_below_a_hundredth_are_no_reasons():
    values = np.zeros(len(GROUPS))
    values[[1, 4]] = [5.0, 0.01]

    assert [reason.code for reason in top_reasons(values)] == ["capacity_trend.raises"]
    assert top_reasons(np.zeros(len(GROUPS))) == ()


@pytest.mark.slow
@pytest.mark.parametrize("name", ["default", "random"])
def test_explaining_again_takes_the_quick_way_to_the_same_values(name, monkeypatch):
    made = [Predictor(load_bundle() if name == "default" else random_bundle()) for _ in range(2)]
    features = rows(40)
    first = [shapley_values(Predictor(made[0].bundle), row[None])[0] for row in features]
    shapley_values(made[0], features[:1])
    monkeypatch.setattr(made[0], "outputs", None)
    again = [shapley_values(made[0], row[None])[0] for row in features]
    monkeypatch.setattr(made[1], "outputs", None)
    together = shapley_values(made[1], features)

    # Probabilities are float32: where one lies near 1 its log-odds are told no better than this.
    assert np.abs(np.array(again) - first).max() < 1e-4
    assert np.median(np.abs(np.array(again) - first)) < 1e-7
    assert np.abs(together - again).max() < 1e-4


def test_a_graph_that_cannot_be_split_is_run_as_a_whole(monkeypatch):
    features = rows(20)
    expected = shapley_values(Predictor(random_bundle()), features)

    def refuse(*_):
        raise ValueError("the graph has no layer")

    monkeypatch.setattr(CoalitionSession, "__init__", refuse)
    whole = Predictor(random_bundle())
    for _ in range(2):
        assert shapley_values(whole, features) == pytest.approx(expected, abs=1e-4)


@pytest.mark.slow
def test_runs_of_a_predictor_are_forgotten_with_it():
    predictor = Predictor(random_bundle())
    shapley_values(predictor, rows(20))
    gone = weakref.ref(predictor)
    del predictor
    gc.collect()
    assert gone() is None


def test_every_feature_has_its_group():
    assert len(GROUPS) == 8
    assert len(GROUP_OF) == len(FEATURE_NAMES)
