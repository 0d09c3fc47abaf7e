"""Bundles written by earlier versions load and predict the same for ever.

`bundle_v1` was made by `make_bundle.py` beside this file. `bundle_v1_default` is the default bundle
as it shipped before its graph did scaling and calibration on constants, under the same key; with
the exporter of that time, `fedcell release default-bundle` made it. Neither is made anew.
"""

import json
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from models.bundle import FILES, load_bundle
from models.inference import Backend, Predictor
from tests.golden.bundles.make_bundle import KEY_ID, PRIVATE_KEY, wavy_parameters, wavy_rows

FOLDER = Path(__file__).parent


def load(name):
    public = Ed25519PrivateKey.from_private_bytes(PRIVATE_KEY).public_key().public_bytes_raw()
    return load_bundle(FOLDER / f"bundle_{name}.zip", trusted_keys={KEY_ID: public})


@pytest.fixture(scope="module", params=["v1", "v1_default"])
def golden(request):
    expected = json.loads((FOLDER / f"expected_{request.param}.json").read_text())
    return load(request.param), expected


def test_a_bundle_of_format_1_loads_with_its_signature(golden):
    bundle, expected = golden
    assert set(bundle.files) == set(FILES)
    assert (bundle.version, bundle.digest) == (expected["version"], expected["digest"])
    assert bundle.manifest["format"] == 1
    assert bundle.threshold == pytest.approx(expected.get("threshold", 0.4))
    assert bundle.card["version"] == bundle.version
    assert bundle.manifest["ledger_entry"]["kind"] == "public"


@pytest.mark.parametrize("backend", Backend)
def test_it_gives_its_recorded_outputs_and_decisions(golden, backend):
    bundle, expected_of = golden
    predictor = Predictor(bundle, backend=backend)
    predictor.check_golden()
    predictions = predictor.predict(wavy_rows().features[:12])

    for name, expected in expected_of["predictions"].items():
        found = getattr(predictions, name).astype(float).tolist()
        assert found == pytest.approx(expected, rel=1e-4, abs=2e-6), name


def test_its_weights_can_be_read_back():
    from models.training.export_onnx import read_parameters

    found = read_parameters(load("v1").model_bytes)
    assert found.flat().tolist() == wavy_parameters().flat().tolist()
