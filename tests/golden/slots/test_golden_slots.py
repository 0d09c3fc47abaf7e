"""The folder of models that the first version left runs for ever, and takes updates.

Made by `make_slots.py` beside this file; never made anew.
"""

import json
import shutil
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from edge_client.model_store import ModelStore
from edge_client.updates.bundle_gate import verify
from edge_client.updates.bundle_trial import check_golden, outputs_of
from tests.support.line_bundle import line_bundle, trusted_keys, write_line_bundle
from tests.support.update_bundles import trusted_keys as update_keys
from tests.support.update_bundles import try_out_here, write_variant

GOLDEN = Path(__file__).with_name("v1")
EXPECTED = json.loads((Path(__file__).parents[1] / "bundles" / "expected_v1.json").read_text())


@pytest.fixture
def models(tmp_path, monkeypatch):
    monkeypatch.setattr("edge_client.updates.bundle_gate.try_out", try_out_here)
    return ModelStore(shutil.copytree(GOLDEN, tmp_path / "device.db.models"))


def names(folder):
    return {path.name for path in folder.iterdir() if not path.name.startswith(".")}


def test_bundle_of_the_first_version_runs_and_is_committed(models):
    before = names(models.folder)
    assert models.open().version == EXPECTED["version"]
    assert models.installed() == models.committed()
    assert models.installed().digest == EXPECTED["digest"]
    assert models.begin_boot() is None
    assert models.commit() is False
    assert names(models.folder) == before


def test_it_is_what_a_trial_goes_back_to(models, tmp_path):
    models.install(write_line_bundle(tmp_path / "b.zip"), trusted_keys=trusted_keys())
    assert models.open().version == line_bundle().version
    for _ in range(3):
        assert ModelStore(models.folder).begin_boot() is None
    assert models.begin_boot().reason == "no_report"
    assert models.open().version == EXPECTED["version"]
    bundle = f"{EXPECTED['digest'][:16]}.zip"
    assert names(models.folder) == {"slots.json", "slots.copy.json", bundle}


def test_it_gives_way_to_a_bundle_that_made_a_report(models, tmp_path):
    models.install(write_line_bundle(tmp_path / "1.zip"), trusted_keys=trusted_keys())
    models.open()
    assert models.commit()
    second = write_line_bundle(tmp_path / "2.zip", name="second", scale=2.0)
    models.install(second, trusted_keys=trusted_keys())
    assert ModelStore(models.folder).committed().digest == line_bundle().digest
    assert f"{EXPECTED['digest'][:16]}.zip" not in names(models.folder)


@pytest.mark.parametrize("backend", ["onnxruntime", "numpy"])
def test_bundle_of_the_first_version_passes_the_gate_of_today(tmp_path, backend):
    source = GOLDEN.parents[1] / "bundles" / "bundle_v1.zip"
    public = Ed25519PrivateKey.from_private_bytes(bytes(range(1, 33))).public_key()
    bundle = verify(source, trusted_keys={"golden": public.public_bytes_raw()})
    check_golden(bundle, outputs_of(bundle, backend))
    assert bundle.version == EXPECTED["version"]


def test_record_without_a_checksum_runs_and_takes_updates(tmp_path, monkeypatch):
    """Made by `make_slots_v2.py`."""
    monkeypatch.setattr("edge_client.updates.bundle_gate.try_out", try_out_here)
    folder = tmp_path / "device.db.models"
    models = ModelStore(shutil.copytree(GOLDEN.with_name("v2"), folder))
    assert models.open().version == line_bundle().version
    assert models.committed().digest == line_bundle().digest
    assert names(folder) == {"slots.json", "a-bcf13599b9b8c5c1.zip"}
    update = write_variant(tmp_path / "b.zip", 2)
    models.install(update, trusted_keys=update_keys())
    assert (models.is_on_trial(), models.open().version) == (True, "update-2")
    assert models.commit()
    assert ModelStore(folder).committed().version == "update-2"
