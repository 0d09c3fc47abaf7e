"""A bundle written by the first version loads and predicts the same for ever.

Made by `make_bundle.py` beside this file; never made anew once released.
"""

import json
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from models.bundle import FILES, load_bundle
from models.inference import Predictor
from tests.golden.bundles.make_bundle import KEY_ID, PRIVATE_KEY, wavy_parameters, wavy_rows

GOLDEN = Path(__file__).with_name("bundle_v1.zip")
EXPECTED = json.loads(Path(__file__).with_name("expected_v1.json").read_text())


@pytest.fixture(scope="module")
def bundle():
    public = Ed25519PrivateKey.from_private_bytes(PRIVATE_KEY).public_key().public_bytes_raw()
    return load_bundle(GOLDEN, trusted_keys={KEY_ID: public})


def test_a_bundle_of_format_1_loads_with_its_signature(bundle):
    assert set(bundle.files) == set(FILES)
    assert (bundle.version, bundle.digest) == (EXPECTED["version"], EXPECTED["digest"])
    assert bundle.manifest["format"] == 1
    assert bundle.threshold == pytest.approx(0.4)
    assert bundle.card["version"] == bundle.version
    assert bundle.manifest["ledger_entry"]["kind"] == "public"


def test_it_gives_its_recorded_outputs_and_decisions(bundle):
    predictor = Predictor(bundle)
    predictor.check_golden()
    predictions = predictor.predict(wavy_rows().features[:12])

    for name, expected in EXPECTED["predictions"].items():
        found = getattr(predictions, name).astype(float).tolist()
        assert found == pytest.approx(expected, rel=1e-4, abs=2e-6), name


def test_its_weights_can_be_read_back(bundle):
    from models.training.export_onnx import read_parameters

    found = read_parameters(bundle.model_bytes)
    assert found.flat().tolist() == wavy_parameters().flat().tolist()
