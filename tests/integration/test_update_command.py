"""`fedcell-device update` from files, folders and addresses, as people and machines use it."""

import json
import os
import pty
import sys

import pytest

from edge_client.cli import main
from edge_client.model_store import ModelStore
from tests.support.edge_devices import new_store
from tests.support.file_server import serving
from tests.support.update_bundles import trusted_keys, try_out_here, write_variant


@pytest.fixture
def device(tmp_path):
    with new_store(tmp_path) as store:
        path = store.path
    keys = tmp_path / "keys.json"
    keys.write_text(json.dumps({name: key.hex() for name, key in trusted_keys().items()}))
    return ["--store", str(path), "--trusted-keys", str(keys)]


@pytest.fixture
def models(tmp_path):
    return ModelStore.beside(tmp_path / "device.db")


@pytest.fixture
def quick(monkeypatch):
    """Try bundles out without a process of their own, and wait for no second attempt."""
    monkeypatch.setattr("edge_client.updates.download.time.sleep", lambda seconds: None)
    monkeypatch.setattr("edge_client.updates.bundle_gate.try_out", try_out_here)


@pytest.fixture
def server(tmp_path):
    content = write_variant(tmp_path / "served.zip", 5, release=5).read_bytes()
    with serving(files={"/b.zip": content}) as served:
        yield served


def test_bundle_of_an_address_runs_from_then_on(device, models, server, capsys):
    """With the child process and ONNX Runtime, as on a device."""
    assert main(["update", server.address + "/b.zip", "--json", *device]) == 0
    said = json.loads(capsys.readouterr().out)
    assert said == {
        "version": "update-5",
        "digest": models.installed().digest,
        "signed_by": "test",
        "release": 5,
        "on_trial": True,
    }
    assert models.open().version == "update-5"
    assert not any((models.folder / "download").iterdir())


def test_bundle_of_a_folder_with_one_zip(quick, device, models, tmp_path, capsys):
    (tmp_path / "stick").mkdir()
    write_variant(tmp_path / "stick" / "b.zip", 3)
    assert main(["update", str(tmp_path / "stick"), *device]) == 0
    said = capsys.readouterr().out
    assert said == (
        "update-3 (signed by test) on trial: the first prediction made with it keeps it\n"
    )
    write_variant(tmp_path / "stick" / "c.zip", 4)
    assert main(["update", str(tmp_path / "stick"), *device]) == 3
    assert "name one of them" in capsys.readouterr().err


def test_broken_download_is_gone_on_with_by_the_next_command(quick, device, server, capsys):
    whole = len(server.files["/b.zip"])
    server.break_after = [5000, 0, 0]
    words = ["update", server.address + "/b.zip", *device]
    assert main(words) == 6
    assert "run the same command again" in capsys.readouterr().err
    assert main(words) == 0
    assert server.asked[-1] == ("bytes=5000-", whole - 5000)


def test_part_that_lost_its_end_is_fetched_anew(quick, device, models, server, capsys):
    """After a power cut the file system may hold zeros where bytes were received."""
    server.break_after = [9000, 0, 0]
    words = ["update", server.address + "/b.zip", *device]
    assert main(words) == 6
    part = models.folder / "download" / "download.zip.part"
    part.write_bytes(part.read_bytes()[:4000] + bytes(5000))
    assert main(words) == 0
    assert models.installed().version == "update-5"
    assert server.asked[-1][0] is None


def test_older_release_needs_to_be_asked_for(quick, device, models, server, tmp_path, capsys):
    assert main(["update", server.address + "/b.zip", *device]) == 0
    models.open()
    assert models.commit()
    older = str(write_variant(tmp_path / "4.zip", 4, release=4))
    assert main(["update", older, *device]) == 5
    assert "release 4 is older than 5, which runs here" in capsys.readouterr().err
    assert main(["update", older, "--allow-older", *device]) == 0


@pytest.mark.parametrize(
    ("words", "code", "says"),
    [
        (["http://127.0.0.1:9/b.zip"], 6, "cannot be reached"),
        (["none.zip"], 4, "no such bundle"),
        (["none.zip", "--tuf-root", "root.json"], 2, "give --repository URL"),
        ([], 2, "SOURCE"),
    ],
)
def test_failures_have_their_code_and_one_line(
    device, models, words, code, says, capsys, monkeypatch
):
    monkeypatch.setattr("edge_client.updates.download.time.sleep", lambda seconds: None)
    try:
        ended = main(["update", *words, *device])
    except SystemExit as error:
        ended = error.code
    assert ended == code
    said = capsys.readouterr().err
    assert says in said
    assert said.count("\n") == 1
    assert models.last_refusal() is None


def test_server_without_the_file_and_one_too_large(quick, device, models, server, capsys):
    assert main(["update", server.address + "/none.zip", *device]) == 6
    assert "answers 404" in capsys.readouterr().err
    server.files["/b.zip"] = bytes(6 << 20)
    assert main(["update", server.address + "/b.zip", *device]) == 5
    assert "is larger than" in capsys.readouterr().err
    assert models.last_refusal().reason == "too_large"


def test_progress_is_shown_on_a_terminal_alone(quick, device, server, monkeypatch, capsys):
    words = ["update", server.address + "/b.zip", *device]
    assert main(words) == 0
    assert capsys.readouterr().err == ""
    ours, theirs = pty.openpty()
    with os.fdopen(theirs, "w") as terminal, monkeypatch.context() as changed:
        changed.setattr(sys, "stderr", terminal)
        assert main(words) == 0
        assert "KiB" in os.read(ours, 4096).decode()
        assert main([*words, "--json"]) == 0
        terminal.write("nothing more")
        terminal.flush()
        assert os.read(ours, 4096) == b"nothing more"
    os.close(ours)


@pytest.mark.parametrize("name", ["slots.json", "*.zip"])
def test_one_damaged_file_never_leaves_a_device_without_a_model(
    quick, device, models, tmp_path, name, capsys
):
    source = str(write_variant(tmp_path / "b.zip", 3))
    assert main(["update", source, *device]) == 0
    models.open()
    assert models.commit()
    (damaged,) = models.folder.glob(name)
    damaged.write_bytes(damaged.read_bytes()[:200])
    for _ in range(2):
        assert main(["predict", *device]) == 0
    assert main(["status", *device]) == 0
    assert "slot_damaged" in capsys.readouterr().out
    assert main(["update", source, *device]) == 0
    assert models.open().version == "update-3"


def test_update_to_what_was_kept_already_says_so(quick, device, models, tmp_path, capsys):
    source = str(write_variant(tmp_path / "b.zip", 3))
    assert main(["update", source, *device]) == 0
    models.open()
    assert models.commit()
    capsys.readouterr()
    assert main(["update", source, *device]) == 0
    assert capsys.readouterr().out == "update-3 (signed by test) runs already\n"


def test_refused_bundle_whose_version_is_not_known_is_told_so(device, tmp_path, capsys):
    (tmp_path / "bad.zip").write_bytes(b"no zip")
    assert main(["update", str(tmp_path / "bad.zip"), *device]) == 5
    assert main(["status", *device]) == 0
    assert "refused model  of unknown version: altered" in capsys.readouterr().out
