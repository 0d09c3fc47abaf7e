import stat
import subprocess
import sys

import pytest

from edge_client.model_store import ModelStore
from models.bundle import load_bundle
from models.errors import ArtefactMissingError, BundleError
from tests.support.line_bundle import KEY_ID, line_bundle, trusted_keys, write_line_bundle
from tests.support.update_bundles import try_out_here


@pytest.fixture
def models(tmp_path, monkeypatch):
    monkeypatch.setattr("edge_client.updates.bundle_gate.try_out", try_out_here)
    return ModelStore.beside(tmp_path / "device.db")


def test_nothing_is_installed_at_first(models):
    assert models.installed() is None
    assert not models.folder.exists()


def test_installed_bundle_is_run_from_then_on_and_needs_no_key(models, tmp_path):
    source = write_line_bundle(tmp_path / "b.zip")
    installed = models.install(source, trusted_keys=trusted_keys())
    assert installed.version == line_bundle().version
    assert installed.signed_by == KEY_ID
    source.unlink()
    opened = ModelStore(models.folder).open()
    assert opened.digest == installed.digest == line_bundle().digest
    assert models.installed() == installed


def test_folder_of_models_is_open_to_its_owner_alone(models, tmp_path):
    models.install(write_line_bundle(tmp_path / "b.zip"), trusted_keys=trusted_keys())
    assert stat.S_IMODE(models.folder.stat().st_mode) == 0o700


def test_second_installation_takes_the_place_of_the_first(models, tmp_path):
    models.install(write_line_bundle(tmp_path / "1.zip"), trusted_keys=trusted_keys())
    second = write_line_bundle(tmp_path / "2.zip", name="second", scale=2.0)
    installed = models.install(second, trusted_keys=trusted_keys())
    assert models.open().version == installed.version
    assert len(list(models.folder.glob("*.zip"))) == 1


@pytest.mark.parametrize("signed", [True, False])
def test_untrusted_bundle_changes_nothing(models, tmp_path, signed):
    good = models.install(write_line_bundle(tmp_path / "1.zip"), trusted_keys=trusted_keys())
    bad = write_line_bundle(tmp_path / "2.zip", signed=signed, name="second", scale=2.0)
    with pytest.raises(BundleError):
        models.install(bad, trusted_keys={"other": bytes(32)})
    assert models.open().version == good.version


def test_truncated_bundle_changes_nothing(models, tmp_path):
    path = write_line_bundle(tmp_path / "1.zip")
    path.write_bytes(path.read_bytes()[:-200])
    with pytest.raises(BundleError, match="truncated"):
        models.install(path, trusted_keys=trusted_keys())
    assert models.installed() is None


def test_unsigned_bundle_needs_to_be_allowed(models, tmp_path):
    path = write_line_bundle(tmp_path / "1.zip", signed=False)
    installed = models.install(path, trusted_keys={}, allow_unsigned=True)
    assert installed.signed_by is None


def test_slot_with_another_bundle_in_it_is_not_run(models, tmp_path):
    installed = models.install(write_line_bundle(tmp_path / "1.zip"), trusted_keys=trusted_keys())
    models.open()
    assert models.commit()
    write_line_bundle(models.folder / installed.file, signed=False, name="second", scale=2.0)
    assert models.open().digest == load_bundle().digest
    assert models.last_refusal().reason == "slot_damaged"


@pytest.mark.parametrize("content", ["", "[]", '{"version": 1}'])
def test_damaged_record_of_the_first_version_leaves_the_default(models, content):
    models.folder.mkdir()
    (models.folder / "current.json").write_text(content)
    assert models.open().digest == load_bundle().digest
    assert (models.folder / "current.json.damaged").read_text() == content


def test_path_is_opened_as_it_is(models, tmp_path):
    path = write_line_bundle(tmp_path / "b.zip")
    assert models.open(str(path), trusted_keys=trusted_keys()).version == line_bundle().version
    with pytest.raises(ArtefactMissingError, match="no such bundle"):
        models.open(str(tmp_path / "none.zip"))


@pytest.mark.slow
def test_opening_the_default_bundle_loads_nothing_of_updates(tmp_path):
    """`fedcell-device predict` pays for what it uses."""
    program = (
        "import sys; from pathlib import Path; from edge_client.model_store import ModelStore;"
        f"ModelStore.beside(Path({str(tmp_path)!r}) / 'd.db').open();"
        "print(*sorted(sys.modules))"
    )
    said = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    loaded = set(said.stdout.split())
    assert "edge_client.model_store" in loaded
    assert (
        loaded
        & {
            *(
                "edge_client.updates.bundle_gate",
                "edge_client.updates.download",
                "edge_client.updates.slots",
            ),
            *(
                "cryptography",
                "fcntl",
                "http.client",
                "logging",
                "subprocess",
                "tuf",
                "onnxruntime",
            ),
        }
        == set()
    )
