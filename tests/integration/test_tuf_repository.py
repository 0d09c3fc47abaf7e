"""Updates from a real TUF repository: fresh, rolled back, frozen, flipped, endless, away."""

import copy
import json
import sys
from datetime import UTC, datetime

import pytest

from edge_client.cli import main
from edge_client.errors import DownloadError, InputMissingError
from edge_client.model_store import ModelStore
from edge_client.updates.download import DownloadLimits
from edge_client.updates.tuf_repository import TufRepository
from edge_client.updates.update import trust_folder, update_model
from models.errors import BundleError
from tests.support.edge_devices import new_store
from tests.support.file_server import serving
from tests.support.tuf_repositories import BundleRepository
from tests.support.update_bundles import trusted_keys, try_out_here, write_variant

NOW = datetime(2026, 6, 1, 12, tzinfo=UTC)
NAME = "battery.zip"
QUICK = DownloadLimits(silence_s=2.0, total_s=10.0)


@pytest.fixture
def repository(tmp_path):
    found = BundleRepository()
    found.release(NAME, write_variant(tmp_path / "1.zip", 1).read_bytes())
    return found


@pytest.fixture
def server(repository):
    with serving(find=repository.files.get) as served:
        yield served


@pytest.fixture
def models(tmp_path, monkeypatch):
    monkeypatch.setattr("edge_client.updates.bundle_gate.try_out", try_out_here)
    return ModelStore.beside(tmp_path / "device.db")


@pytest.fixture
def update(models, server, repository, tmp_path):
    (tmp_path / "root.json").write_bytes(repository.root)

    def run(target=NAME, first_root=tmp_path / "root.json"):
        return update_model(
            models,
            target,
            trusted_keys=trusted_keys(),
            repository=server.address,
            first_root=first_root,
            now=NOW,
            limits=QUICK,
        )

    return run


def refused(update, models, says, **choices):
    """Expect a refusal that leaves the model as it is, and is recorded."""
    before = models.installed()
    with pytest.raises(BundleError, match=says) as refusal:
        update(**choices)
    assert refusal.value.reason == "repository"
    assert models.installed() == before
    assert models.last_refusal().reason == "repository"
    assert models.open().version == ("default" if before is None else before.version)


def test_current_bundle_is_fetched_and_installed(update, models, repository, tmp_path):
    assert update().version == "update-1"
    repository.release(NAME, write_variant(tmp_path / "2.zip", 2).read_bytes())
    assert update(first_root=None).version == "update-2"
    assert models.installed().version == "update-2"


def test_repository_that_goes_back_is_refused(update, models, repository, tmp_path):
    update()
    earlier = copy.copy(repository.files)
    repository.release(NAME, write_variant(tmp_path / "2.zip", 2).read_bytes())
    update()
    repository.files.clear()
    repository.files.update(earlier)
    refused(update, models, "is refused")
    assert models.installed().version == "update-2"


def test_frozen_repository_is_refused_and_the_model_stays(update, models, repository, tmp_path):
    update()
    repository.release(NAME, write_variant(tmp_path / "2.zip", 2).read_bytes(), days=-1)
    refused(update, models, "its metadata has expired")
    repository.release(NAME, write_variant(tmp_path / "3.zip", 3).read_bytes())
    assert update().version == "update-3"


def test_flipped_bit_of_a_bundle_is_refused(update, models, repository):
    path = next(path for path in repository.files if path.endswith(NAME))
    flipped = bytearray(repository.files[path])
    flipped[len(flipped) // 2] ^= 1
    repository.files[path] = bytes(flipped)
    with pytest.raises(BundleError, match="is refused"):
        update()
    assert models.installed() is None
    assert models.last_refusal().reason == "repository"


@pytest.mark.parametrize("name", ["timestamp", "1.snapshot", "1.targets"])
def test_flipped_bit_of_metadata_is_refused(update, models, repository, name):
    path = f"/metadata/{name}.json"
    content = json.loads(repository.files[path])
    content["signed"]["version"] += 1
    repository.files[path] = json.dumps(content).encode()
    with pytest.raises(BundleError, match="is refused"):
        update()
    assert models.installed() is None


def test_metadata_of_other_keys_is_refused(update, models, repository, tmp_path):
    update()
    other = BundleRepository()
    for number in range(2, 5):
        other.release(NAME, write_variant(tmp_path / f"{number}.zip", number).read_bytes())
    first = repository.root
    repository.files.clear()
    repository.files.update(other.files)
    repository.files["/metadata/1.root.json"] = first
    refused(update, models, "is refused")


def test_endless_answers_are_cut_off(update, models, server):
    server.is_endless = True
    with pytest.raises((BundleError, DownloadError)):
        update()
    assert models.installed() is None


def test_slow_answers_end(server, repository, tmp_path):
    (tmp_path / "root.json").write_bytes(repository.root)
    server.pause_s = 0.2
    limits = DownloadLimits(silence_s=1.0, total_s=0.3)
    trusted = TufRepository(server.address, tmp_path / "trust", limits=limits)
    with pytest.raises((DownloadError, BundleError)):
        trusted.fetch(NAME, first_root=tmp_path / "root.json")


def test_trust_is_never_reset(update, models, server, repository):
    update()
    folder = trust_folder(models) / "metadata"
    before = {path.name: path.read_bytes() for path in folder.glob("*.json")}
    repository.files.clear()
    with pytest.raises(DownloadError, match="cannot be reached"):
        update()
    assert {path.name: path.read_bytes() for path in folder.glob("*.json")} == before
    assert not folder.is_relative_to(models.folder)


def test_unknown_name_and_missing_root_say_what_to_do(update, models):
    with pytest.raises(InputMissingError, match="--tuf-root"):
        update(first_root=None)
    with pytest.raises(BundleError, match=r"holds no 'other.zip'"):
        update(target="other.zip")


def test_repository_out_of_reach_is_no_refusal(models, tmp_path, repository):
    (tmp_path / "root.json").write_bytes(repository.root)
    trusted = TufRepository("http://127.0.0.1:9", tmp_path / "trust", limits=QUICK)
    with pytest.raises(DownloadError, match="cannot be reached"):
        trusted.fetch(NAME, first_root=tmp_path / "root.json")
    assert models.last_refusal() is None


def test_bundle_of_the_repository_must_still_pass_the_gate(update, models, repository):
    repository.release(NAME, b"signed by the repository, and no bundle")
    with pytest.raises(BundleError) as refusal:
        update()
    assert refusal.value.reason == "altered"


def test_command_takes_a_repository_and_says_which_extra_is_missing(
    models, server, repository, tmp_path, capsys, monkeypatch
):
    store = new_store(tmp_path)
    store.close()
    keys = tmp_path / "keys.json"
    keys.write_text(json.dumps({name: key.hex() for name, key in trusted_keys().items()}))
    (tmp_path / "root.json").write_bytes(repository.root)
    words = ["update", NAME, "--repository", server.address, "--store", str(store.path)]
    words += ["--trusted-keys", str(keys), "--tuf-root", str(tmp_path / "root.json")]
    assert main([*words, "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert (said["version"], said["on_trial"]) == ("update-1", True)

    repository.release(NAME, b"", days=-1)
    assert main(words) == 5
    assert "its metadata has expired" in capsys.readouterr().err

    monkeypatch.setitem(sys.modules, "edge_client.updates.tuf_repository", None)
    monkeypatch.setitem(sys.modules, "tuf", None)
    assert main(words) == 4
    assert "pip install 'fedcell[tuf]'" in capsys.readouterr().err
