"""The small tree: what it says, how faithful it is, and how a device goes through it."""

import json
from dataclasses import replace

import numpy as np
import pytest

from models.bundle import load_bundle
from models.feature_spec import FEATURE_NAMES, NUM_FEATURES
from models.inference import Predictor
from models.training.surrogate_tree import ModelRows, fidelity_text, surrogate_tree
from models.tree_path import Condition, follow_tree
from tests.support.fleets import random_bundle, simulated_rows

REFERENCE = np.full(NUM_FEATURES, 0.5, np.float32)
NAME = FEATURE_NAMES[3]


def rows_of_a_step(count, *, seed=0, missing=0.1):
    """Rows whose log-odds jump from −3 to 2 where the fourth feature passes 0.8."""
    rng = np.random.default_rng(seed)
    features = rng.uniform(0, 1, (count, NUM_FEATURES)).astype(np.float32)
    features[rng.random(features.shape) < missing] = np.nan
    above = np.where(np.isnan(features[:, 3]), 0.5, features[:, 3]) > 0.8
    probability = 1 / (1 + np.exp(-np.where(above, 2.0, -3.0)))
    return ModelRows(features, probability.astype(np.float32), above)


def test_the_tree_says_what_the_model_says_where_a_tree_can():
    tree = surrogate_tree(rows_of_a_step(3000), rows_of_a_step(1000, seed=1), reference=REFERENCE)

    assert tree["nodes"][0]["feature"] == NAME
    assert tree["nodes"][0]["threshold"] == pytest.approx(0.8, abs=0.02)
    assert tree["fidelity"] > 0.99
    assert tree["fidelity_f1"] > 0.97
    assert tree["fidelity_r2"] > 0.95
    leaves = [node for node in tree["nodes"] if "log_odds" in node]
    assert {round(leaf["log_odds"]) for leaf in leaves} == {-3, 2}
    assert json.loads(json.dumps(tree)) == tree


def test_fidelity_is_measured_on_the_rows_given_for_it():
    checked = rows_of_a_step(1000, seed=1, missing=0.0)
    opposite = replace(checked, flagged=~checked.flagged, probability=1 - checked.probability)
    tree = surrogate_tree(rows_of_a_step(3000), opposite, reference=REFERENCE)

    assert tree["fidelity"] < 0.01
    assert tree["fidelity_r2"] < 0


def test_r2_is_that_of_its_definition():
    checked = rows_of_a_step(400, seed=2)
    noisy = replace(
        checked,
        probability=np.random.default_rng(3).uniform(0.01, 0.99, 400).astype(np.float32),
    )
    tree = surrogate_tree(rows_of_a_step(3000), noisy, reference=REFERENCE)
    odds = np.log(noisy.probability.astype(float) / (1 - noisy.probability.astype(float)))
    told = [
        next(node for node in [_leaf(tree, row)])["log_odds"]
        for row in np.where(np.isnan(noisy.features), REFERENCE, noisy.features)
    ]
    expected = 1 - ((odds - told) ** 2).sum() / ((odds - odds.mean()) ** 2).sum()

    assert tree["fidelity_r2"] == pytest.approx(expected, abs=1e-3)


def _leaf(tree, row):
    node = tree["nodes"][0]
    while "feature" in node:
        is_above = row[FEATURE_NAMES.index(node["feature"])] > node["threshold"]
        node = tree["nodes"][node["right" if is_above else "left"]]
    return node


def test_nothing_flagged_and_nothing_checked_leave_no_figure():
    rows = rows_of_a_step(500)
    never = surrogate_tree(replace(rows, flagged=np.zeros(500, bool)), rows, reference=REFERENCE)
    assert never["nodes"] == [{"flagged_share": 0.0}]
    assert never["fidelity"] is None
    unchecked = surrogate_tree(rows, rows.where(np.zeros(500, bool)), reference=REFERENCE)
    assert len(unchecked["nodes"]) > 1
    assert unchecked["fidelity_r2"] is None
    assert "not measured" in fidelity_text(unchecked)


def test_a_new_bundle_carries_the_fidelity_in_manifest_and_card():
    bundle = random_bundle()
    tree = bundle.manifest["surrogate_tree"]

    assert 0 < tree["fidelity"] <= 1
    assert tree["fidelity_r2"] < 1
    assert bundle.card["surrogate_tree"] == {
        name: tree[name] for name in ("fidelity", "fidelity_f1", "fidelity_r2")
    }
    assert f"{tree['fidelity']:.1%}" in bundle.files["model_card.md"].decode()


def test_a_device_reaches_the_leaf_that_the_tree_puts_it_in():
    bundle = random_bundle()
    tree, reference = bundle.manifest["surrogate_tree"], bundle.explanation_reference
    for features in simulated_rows().features[::997]:
        path = follow_tree(tree, features, reference=reference)
        leaf = _leaf(tree, np.where(np.isnan(features), reference, features))
        assert path.flagged_share == leaf["flagged_share"]
        for condition in path.conditions:
            own = features[FEATURE_NAMES.index(condition.feature)]
            if condition.value is None:
                assert np.isnan(own)
            else:
                assert (own > condition.threshold) == condition.is_above


def test_the_default_bundle_without_r2_is_walked_all_the_same():
    bundle = load_bundle()
    features = simulated_rows().features
    path = follow_tree(
        bundle.manifest["surrogate_tree"], features[0], reference=bundle.explanation_reference
    )
    assert path.fidelity > 0.98
    assert 1 <= len(path.conditions) <= 3
    flagged = Predictor(bundle).predict(features).flagged
    says = [
        follow_tree(
            bundle.manifest["surrogate_tree"], row, reference=bundle.explanation_reference
        ).is_flagged
        for row in features[:: len(features) // 300]
    ]
    assert np.mean(np.array(says) == flagged[:: len(features) // 300]) > 0.9


def split(feature, threshold, left, right):
    return {"feature": feature, "threshold": threshold, "left": left, "right": right}


def test_of_several_conditions_on_one_side_the_tightest_is_told():
    nodes = [
        split(NAME, 9.0, 1, 2),
        split(NAME, 5.0, 3, 2),
        {"flagged_share": 0.1},
        split(NAME, 1.0, 2, 4),
        {"flagged_share": 0.75},
    ]
    features = np.full(NUM_FEATURES, 3.0, np.float32)
    path = follow_tree({"nodes": nodes}, features, reference=REFERENCE)

    assert path.conditions == (
        Condition(NAME, is_above=False, threshold=5.0, value=3.0),
        Condition(NAME, is_above=True, threshold=1.0, value=3.0),
    )
    assert path.is_flagged
    assert path.fidelity is None


def test_what_was_not_measured_is_answered_by_the_reference_and_said():
    tree = {"nodes": [split(NAME, 0.4, 1, 2), {"flagged_share": 0.0}, {"flagged_share": 1.0}]}
    features = np.full(NUM_FEATURES, np.nan, np.float32)
    path = follow_tree(tree, features, reference=REFERENCE)

    assert path.conditions == (Condition(NAME, is_above=True, threshold=0.4, value=None),)
    assert path.flagged_share == 1.0


@pytest.mark.parametrize(
    "tree",
    [
        {},
        {"nodes": []},
        {"nodes": [split(NAME, 0.4, 0, 0)]},
        {"nodes": [split("no_such_feature", 0.4, 0, 0)]},
        {"nodes": [split(NAME, 0.4, 7, 7)]},
        {"nodes": [{"flagged_share": 7}]},
        {"nodes": "tree"},
        {"nodes": [None]},
    ],
)
def test_a_tree_that_cannot_be_walked_is_left_out(tree):
    assert follow_tree(tree, REFERENCE, reference=REFERENCE) is None
