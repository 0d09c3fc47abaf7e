"""A disk that is full or refuses, and several processes at once: an error, and nothing is lost."""

import json
import os
import resource
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from contextlib import contextmanager
from datetime import timedelta
from multiprocessing import get_context

import pytest

from edge_client.cli import main
from edge_client.errors import ReadingRefusedError, StoreBusyError, StoreError
from edge_client.store import access
from edge_client.store.erasure import erase_device
from edge_client.store.mailbox import Purpose
from edge_client.store.profile_copy import copy_path
from edge_client.store.quarantine import quarantined
from edge_client.store.recovery import open_or_recover
from edge_client.store.rewrite import rewrite_store
from edge_client.telemetry_store import TelemetryStore
from tests.golden.make_edge_store import fill
from tests.support.edge_devices import NOW, PROFILE, fading_life, new_store, reading

KEY = bytes(32)
OTHER_PROCESS = """
import sqlite3, sys
other = sqlite3.connect(sys.argv[1], timeout=1)
print(other.execute("SELECT count(*) FROM reading").fetchone())
other.close()
"""


@contextmanager
def mounted(folder, *options):
    """A file system of its own; only root can mount one."""
    folder.mkdir(exist_ok=True)
    command = ["mount", "-t", "tmpfs", *options, "tmpfs", str(folder)]
    if os.geteuid() != 0 or subprocess.run(command, check=False, capture_output=True).returncode:
        pytest.skip("mounting a file system needs root")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


def fill_up(disk):
    """Fill a disk to the last byte with a file of somebody else."""
    with (disk / "ballast").open("wb", buffering=0) as ballast:
        for size in (65_536, 4_096, 1):
            try:
                while ballast.write(bytes(size)) == size:
                    pass
            except OSError:
                continue


@pytest.fixture(params=[None, lambda: KEY], ids=["plain", "sealed"])
def key(request):
    return request.param


@pytest.fixture
def disk(tmp_path):
    with mounted(tmp_path / "disk", "-o", "size=2m") as folder:
        yield folder


def test_full_disk_refuses_and_the_store_works_on_with_space(disk, key):
    with new_store(disk, key=key) as store:
        fill(store)
        fill_up(disk)
        refused = kept = 0
        for number in range(2_000):
            try:
                store.record(reading(NOW - timedelta(seconds=number)), now=NOW)
                kept += 1
            except StoreBusyError:
                refused += 1
                if refused > 5:
                    break
        assert refused > 5
        with pytest.raises(StoreBusyError, match="full"):
            store.set_consent(Purpose.SUMMARIES, granted=False, now=NOW)
        assert store.consents()[Purpose.SUMMARIES].granted
        assert store.num_readings() == 161 + kept
        (disk / "ballast").unlink()
        store.record(reading(NOW), now=NOW)
    again, recovery = open_or_recover(store.path, NOW, key)
    with again:
        assert recovery is None
        assert again.num_readings() == 161 + kept + 1


def test_full_disk_takes_readings_while_the_log_holds_room(disk, key):
    """The log holds each page as often as it was written; moved into the file, once."""
    with new_store(disk, key=key) as store:
        store._connection.execute("PRAGMA wal_autocheckpoint = 0")
        store._journal_limited_for = (None,)
        for number in range(40):
            store.record(reading(NOW - timedelta(seconds=number)), now=NOW)
        fill_up(disk)
        for number in range(10):
            store.record(reading(NOW - timedelta(minutes=number)), now=NOW)
        store.record_many([reading(NOW - timedelta(hours=number)) for number in range(5)], now=NOW)
        assert store.num_readings() == 55
        store.check()


def test_store_cannot_be_made_on_a_full_disk_and_leaves_nothing(disk, key):
    fill_up(disk)
    with pytest.raises(StoreBusyError):
        new_store(disk, key=key)
    assert not (disk / "device.db").exists()
    (disk / "ballast").unlink()
    with new_store(disk, key=key) as store:
        assert store.profile == PROFILE


def test_damaged_store_stays_where_the_disk_has_no_room_for_a_fresh_one(disk, key):
    with new_store(disk, key=key) as store:
        store.record_many(fading_life(days=30), now=NOW)
    content = bytearray(store.path.read_bytes())
    content[8192:] = b"\xa5" * (len(content) - 8192)
    store.path.write_bytes(content)
    fill_up(disk)
    with pytest.raises(StoreBusyError):
        open_or_recover(store.path, NOW, key)
    assert store.path.read_bytes() == content
    assert quarantined(store.path) == ()
    (disk / "ballast").unlink()
    again, recovery = open_or_recover(store.path, NOW, key)
    with again:
        assert again.profile == PROFILE
    assert recovery.set_aside.read_bytes() == content


def test_store_stays_in_the_clear_where_there_is_no_room_to_seal_it(disk):
    with new_store(disk) as store:
        fill(store)
        said = store.export()
    fill_up(disk)
    with pytest.raises(StoreBusyError):
        rewrite_store(store.path, key=None, new_key=lambda: KEY)
    (disk / "ballast").unlink()
    with TelemetryStore(store.path) as again:
        assert again.export() == said


def test_full_disk_does_not_keep_a_device_from_being_erased(disk):
    new_store(disk).close()
    (disk / "ledger").write_text("")
    fill_up(disk)
    removed = erase_device(disk / "device.db", now=NOW)
    assert disk / "device.db" in removed


def test_file_that_may_not_grow_refuses_and_stays_sound(tmp_path, key):
    """A quota, as the kernel enforces it on one process."""
    with new_store(tmp_path, key=key) as store:
        fill(store)
    child = os.fork()
    if child == 0:
        code = 1
        try:
            signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
            resource.setrlimit(resource.RLIMIT_FSIZE, (40_000, 40_000))
            with TelemetryStore(store.path, key=key) as limited:
                try:
                    for number in range(500):
                        limited.record(reading(NOW - timedelta(seconds=number)), now=NOW)
                except StoreBusyError:
                    code = 0
        finally:
            os._exit(code)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    again, recovery = open_or_recover(store.path, NOW, key)
    with again:
        assert recovery is None
        assert again.num_readings() >= 161


def test_disk_that_became_read_only_is_an_error_that_says_so(tmp_path, key):
    with mounted(tmp_path / "disk", "-o", "size=2m") as disk:
        with new_store(disk, key=key) as store:
            fill(store)
        subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
        for attempt in (
            lambda: TelemetryStore(store.path, key=key).record(reading(), now=NOW),
            lambda: open_or_recover(store.path, NOW, key),
            lambda: erase_device(store.path, now=NOW),
            lambda: TelemetryStore.create(disk / "other.db", profile=PROFILE),
        ):
            with pytest.raises(StoreBusyError) as refused:
                attempt()
            assert refused.value.exit_code == 6
            assert "read-only" in str(refused.value).lower()
        subprocess.run(["mount", "-o", "remount,rw", str(disk)], check=True)
        with TelemetryStore(store.path, key=key) as again:
            assert again.num_readings() == 161


def test_prediction_does_not_wait_for_who_writes(tmp_path, capsys):
    """What it would keep can be kept the next time."""
    with new_store(tmp_path) as store:
        store.record_many(fading_life(), now=NOW)
    writer = sqlite3.connect(store.path, isolation_level=None)
    writer.execute("BEGIN IMMEDIATE")
    start = time.monotonic()
    code = main(["--store", str(store.path), "predict", "--now", NOW.isoformat(), "--json"])
    took_s = time.monotonic() - start
    writer.close()
    assert (code, json.loads(capsys.readouterr().out)["status"]) == (0, "ok")
    assert took_s < 5
    with TelemetryStore(store.path) as again:
        assert again.references() is None
        assert again.day_rows(0) == []
        with again.waiting_briefly():
            assert again.rows("PRAGMA busy_timeout") == [(100,)]
        assert again.rows("PRAGMA busy_timeout") == [(10_000,)]


def test_store_on_a_read_only_disk_still_answers(tmp_path, capsys):
    with mounted(tmp_path / "disk", "-o", "size=2m") as disk:
        with new_store(disk) as store:
            store.record_many(fading_life(), now=NOW)
            said = store.export()
        subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
        answers = {}
        for words in (["predict", "--now", NOW.isoformat()], ["status"], ["check"], ["export"]):
            code = main(["--store", str(store.path), *words])
            printed = capsys.readouterr()
            assert (code, printed.err) == (0, ""), words
            answers[words[0]] = printed.out
        assert json.loads(answers["export"]) == said
        assert "on a read-only disk: nothing can be recorded" in answers["status"]
        for words in (["record", "--usage-hours", "1"], ["check", "--repair"]):
            assert main(["--store", str(store.path), *words]) == 6
            assert "lies on a read-only disk; nothing was written" in capsys.readouterr().err


def test_store_on_a_full_disk_still_answers(disk, capsys):
    with new_store(disk) as store:
        store.record_many(fading_life(), now=NOW)
        said = store.export()
    before = store.path.read_bytes()
    fill_up(disk)
    answers = {}
    now = ["--now", NOW.isoformat()]
    for words in (["predict", *now], ["status"], ["check"], ["export"], ["notices", *now]):
        code = main(["--store", str(store.path), *words])
        printed = capsys.readouterr()
        assert (code, printed.err) == (0, ""), words
        answers[words[0]] = printed.out
    assert json.loads(answers["export"]) == said
    assert "on a full disk: nothing can be recorded" in answers["status"]
    for words in (["record", "--usage-hours", "1"], ["check", "--repair"], ["run", "--once"]):
        assert main(["--store", str(store.path), *words]) == 6, words
        assert "the disk is full; nothing was written; make room" in capsys.readouterr().err
    assert store.path.read_bytes() == before
    (disk / "ballast").unlink()
    assert main(["--store", str(store.path), "record", "--usage-hours", "1"]) == 0
    with TelemetryStore(store.path) as again:
        assert not again.is_alone
        assert again.num_readings() == 481


def test_full_disk_leaves_out_nothing_that_a_killed_process_had_confirmed(disk, key):
    source = disk.parent / "source"
    source.mkdir()
    with new_store(source, key=key) as store:
        fill(store)
        for name in ("device.db", "device.db-wal", "device.db.profile.json"):
            shutil.copy(source / name, disk)
        before = store.telemetry().at_s.tolist()
    assert (disk / "device.db-wal").stat().st_size
    fill_up(disk)
    with TelemetryStore(disk / "device.db", key=key) as left:
        assert left.is_alone
        left.check()
        assert left.telemetry().at_s.tolist() == before


def test_of_processes_on_a_full_disk_one_at_a_time_has_the_store(disk, monkeypatch):
    new_store(disk).close()
    fill_up(disk)
    monkeypatch.setattr(access, "BUSY_TIMEOUT_MS", 50)
    with TelemetryStore(disk / "device.db"):
        other = [sys.executable, "-c", OTHER_PROCESS, str(disk / "device.db")]
        assert "locked" in subprocess.run(other, check=False, capture_output=True, text=True).stderr
        with pytest.raises(StoreBusyError):
            TelemetryStore(disk / "device.db")


def test_journal_on_a_read_only_disk_is_not_passed_over(tmp_path):
    """Without it the store would answer with less than was confirmed."""
    with mounted(tmp_path / "disk", "-o", "size=2m") as disk:
        source = tmp_path / "source"
        source.mkdir()
        with new_store(source) as store:
            store.record(reading(), now=NOW)
            for file in source.iterdir():
                shutil.copy(file, disk)
        (disk / "device.db-shm").unlink()
        subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
        with pytest.raises(StoreBusyError, match="its journal cannot be read without writing"):
            TelemetryStore(disk / "device.db")


def record_some(path, key, first, count):
    with TelemetryStore(path, key=key) as store:
        for number in range(first, first + count):
            store.record(reading(NOW - timedelta(seconds=number)), now=NOW)
            if number % 10 == 0:
                try:
                    store.record(reading(usage_hours=-1.0), now=NOW)
                except ReadingRefusedError:
                    continue


def test_processes_that_record_at_once_lose_nothing(tmp_path, key):
    new_store(tmp_path, key=key).close()
    path = tmp_path / "device.db"
    context = get_context("fork")
    workers = [
        context.Process(target=record_some, args=(path, key, 1_000 * number, 100))
        for number in range(3)
    ]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    with TelemetryStore(path, key=key) as store:
        store.check()
        assert len(set(store.telemetry().at_s.tolist())) == store.num_readings() == 300
        assert store.refusals() == {"out_of_range:usage_hours": 30}


def open_damaged(path, answers):
    try:
        store, recovery = open_or_recover(path, NOW)
        with store:
            store.record(reading(NOW), now=NOW)
        answers.put("begun anew" if recovery else "sound")
    except StoreError as error:
        answers.put(str(error))


def test_processes_that_find_damage_at_once_begin_anew_once(tmp_path):
    with new_store(tmp_path) as store:
        store.record_many(fading_life(days=30), now=NOW)
    content = bytearray(store.path.read_bytes())
    content[8192:] = b"\xa5" * (len(content) - 8192)
    store.path.write_bytes(content)
    context = get_context("fork")
    answers = context.SimpleQueue()
    workers = [context.Process(target=open_damaged, args=(store.path, answers)) for _ in range(4)]
    for worker in workers:
        worker.start()
    said = [answers.get() for _ in workers]
    for worker in workers:
        worker.join()
    assert sorted(said) == ["begun anew", "sound", "sound", "sound"]
    assert len(quarantined(store.path)) == 1
    assert copy_path(store.path).exists()
    with TelemetryStore(store.path) as again:
        assert again.num_readings() == 4


def test_second_opening_in_a_process_leaves_the_first_its_journal(tmp_path, key):
    """A file closed beside SQLite would take the process's locks with it, and then its journal."""
    with new_store(tmp_path, key=key) as agent:
        agent.record(reading(NOW - timedelta(hours=12)), now=NOW)
        TelemetryStore(agent.path, key=key).close()
        subprocess.run([sys.executable, "-c", OTHER_PROCESS, str(agent.path)], check=True)
        assert agent.path.with_name("device.db-wal").exists()
        agent.record(reading(NOW), now=NOW)
    with TelemetryStore(agent.path, key=key) as again:
        assert again.num_readings() == 2
