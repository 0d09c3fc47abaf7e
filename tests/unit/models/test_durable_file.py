"""Whole or not at all, whatever the disk does."""

import os
from pathlib import Path

import pytest

from models.durable_file import write_durably
from models.errors import PlaceRefusedError


def test_a_file_is_replaced_whole(tmp_path):
    path = tmp_path / "f.json"
    path.write_text("old")
    write_durably(path, b"new")

    assert path.read_bytes() == b"new"
    assert [each.name for each in tmp_path.iterdir()] == ["f.json"]


def test_what_is_no_regular_file_is_never_replaced(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "link").symlink_to("pipe")
    for name in ("pipe", "link"):
        with pytest.raises(PlaceRefusedError, match=r"is no regular file\); choose") as refused:
            write_durably(tmp_path / name, b"new")
        assert refused.value.where == str(tmp_path / name)
        assert refused.value.exit_code == 6

    assert (tmp_path / "pipe").is_fifo()
    assert sorted(each.name for each in tmp_path.iterdir()) == ["link", "pipe"]


def test_a_file_has_its_name_only_once_its_content_is_synced(tmp_path, monkeypatch):
    path, synced = tmp_path / "f.json", []

    def fsync(handle):
        synced.append((str(Path(f"/proc/self/fd/{handle}").readlink()), path.exists()))

    monkeypatch.setattr("models.durable_file.os.fsync", fsync)
    write_durably(path, b"new")

    assert synced == [(f"{tmp_path}/.f.json.{os.getpid()}.part", False), (str(tmp_path), True)]


def test_a_full_disk_leaves_what_was_there(tmp_path, monkeypatch):
    def full(_):
        raise OSError(28, "No space left on device")

    path = tmp_path / "f.json"
    path.write_text("old")
    monkeypatch.setattr("models.durable_file.os.fsync", full)
    with pytest.raises(OSError, match="No space left"):
        write_durably(path, b"new")

    assert path.read_text() == "old"
    assert [each.name for each in tmp_path.iterdir()] == ["f.json"]
