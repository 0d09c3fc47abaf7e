"""Coalitions run in two parts give what the whole graph gives."""

from pathlib import Path

import numpy as np
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from models import coalition_session
from models.bundle import OUTPUTS, load_bundle
from models.coalition_session import CoalitionSession
from models.feature_spec import NUM_FEATURES
from models.inference import Predictor
from models.tree_path import follow_tree
from tests.golden.bundles.make_bundle import KEY_ID, PRIVATE_KEY
from tests.support.fleets import random_bundle, simulated_rows

GOLDEN = Path(__file__).parents[2] / "golden" / "bundles" / "bundle_v1.zip"
PUBLIC_KEY = Ed25519PrivateKey.from_private_bytes(PRIVATE_KEY).public_key().public_bytes_raw()


def first_version():
    """Return the bundle that the first version wrote."""
    return load_bundle(GOLDEN, trusted_keys={KEY_ID: PUBLIC_KEY})


BUNDLES = pytest.mark.parametrize("bundle_of", [load_bundle, random_bundle, first_version])


@pytest.mark.slow
@BUNDLES
@pytest.mark.parametrize("output", OUTPUTS)
def test_mixing_behind_the_view_is_mixing_the_features(bundle_of, output):
    bundle = bundle_of()
    own = simulated_rows().features[::5000]
    other = np.where(np.isnan(own), own, bundle.explanation_reference)
    takes_own = np.random.default_rng(0).random((40, NUM_FEATURES)) < 0.5
    mixed = np.where(takes_own, own[:, None], other[:, None]).reshape(-1, NUM_FEATURES)

    found = CoalitionSession(bundle.model_bytes, output).run_coalitions(own, other, takes_own)
    expected = Predictor(bundle).outputs(mixed, [output])[output]
    assert np.isnan(own).any()
    assert found == pytest.approx(expected, rel=1e-5, abs=1e-6)


@BUNDLES
def test_a_graph_that_looks_at_several_features_before_its_layers_is_refused(
    bundle_of, monkeypatch
):
    fewer = coalition_session.FEATURE_BY_FEATURE - {"Concat"}
    monkeypatch.setattr(coalition_session, "FEATURE_BY_FEATURE", fewer)
    with pytest.raises(ValueError, match="Concat does not treat every feature alone"):
        CoalitionSession(bundle_of().model_bytes, OUTPUTS[0])


def test_the_tree_of_the_first_version_is_walked_without_the_figure_it_lacks():
    bundle = first_version()
    path = follow_tree(
        bundle.manifest["surrogate_tree"],
        simulated_rows().features[0],
        reference=bundle.explanation_reference,
    )
    assert path.conditions
    assert path.fidelity == bundle.manifest["surrogate_tree"]["fidelity"]
    assert path.fidelity_r2 is None
