"""SIGKILL at random points of everything that writes to a store: whole before, whole after.

What a process has said to be done is there afterwards; what it was doing is there or is not.
"""

import os
import shutil
import signal
import sqlite3
import time
from datetime import timedelta
from itertools import count
from random import Random

import pytest

from edge_client.errors import StoreKeyError, StoreMissingError
from edge_client.link.notice_receiver import answer_notice
from edge_client.store.erasure import erase_device, tombstones
from edge_client.store.mailbox import Purpose
from edge_client.store.profile_copy import copy_path
from edge_client.store.quarantine import quarantined
from edge_client.store.recovery import open_or_recover
from edge_client.store.rewrite import finish_rewrite, rewrite_store
from edge_client.telemetry_store import TelemetryStore
from models.wire.codec import decode
from models.wire.messages import Ack, NoticeState
from tests.golden.make_edge_store import FOLDER, fill
from tests.support.edge_devices import NOW, PROFILE, fading_life, new_store, reading

A_TENTH = 10
ALL = 100
LONG_AGO = NOW - timedelta(days=300)


def key():
    return bytes(range(32))


def killed(work, *, after_s):
    """Let a process work, kill it some time after it has begun, and return what it had said."""
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(read)
        try:
            work(lambda word: os.write(write, f"{word}\n".encode()))
        finally:
            os._exit(0)
    os.close(write)
    with os.fdopen(read) as pipe:
        assert pipe.readline() == "begun\n"
        time.sleep(after_s)
        os.kill(child, signal.SIGKILL)
        said = pipe.read().split("\n")[:-1]
    os.waitpid(child, 0)
    return said


def duration_s(work):
    """Let a process work to its end, and return how long that takes here and now."""
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            work(lambda _: os.write(write, b"."))
        finally:
            os._exit(0)
    os.close(write)
    os.read(read, 1)
    start = time.perf_counter()
    os.waitpid(child, 0)
    os.close(read)
    return time.perf_counter() - start


def is_sound(store):
    store.check()
    return store.rows("PRAGMA integrity_check") == [("ok",)]


def recording(folder, *, rounds, seed, key, **choices):
    random = Random(seed)
    new_store(folder, key=key, **choices).close()
    path, number, cuts, minutes = folder / "device.db", 0, 0, []
    while cuts < rounds or not minutes:

        def record(say, number=number):
            with TelemetryStore(path, key=key) as store:
                say("begun")
                for minute in count(number + 1):
                    store.record(reading(LONG_AGO + timedelta(minutes=minute)), now=NOW)
                    say(minute)

        said = killed(record, after_s=random.uniform(0.0, 0.02))
        with TelemetryStore(path, key=key) as store:
            assert is_sound(store)
            sequences, telemetry = store.telemetry_from(0)
        minutes = ((telemetry.at_s - int(LONG_AGO.timestamp())) // 60).tolist()
        acknowledged = int(said[-1]) if said else number
        assert minutes == list(range(minutes[0], minutes[-1] + 1)) if minutes else not said
        assert minutes == [] or minutes[-1] in {acknowledged, acknowledged + 1}
        assert len(set(sequences.tolist())) == len(sequences)
        number, cuts = minutes[-1] if minutes else 0, cuts + 1
    return number, minutes, cuts


@pytest.mark.parametrize("given", [None, key], ids=["plain", "sealed"])
def test_killed_recorder_loses_nothing_it_acknowledged(tmp_path, given):
    number, minutes, _ = recording(tmp_path, rounds=A_TENTH // 2, seed=1, key=given)
    assert minutes == list(range(1, number + 1))
    assert number > 0


@pytest.mark.soak
@pytest.mark.parametrize("given", [None, key], ids=["plain", "sealed"])
def test_killed_recorder_loses_nothing_at_a_hundred_points(tmp_path, given):
    number, minutes, cuts = recording(tmp_path, rounds=ALL, seed=2, key=given)
    assert minutes == list(range(1, number + 1))
    assert cuts == ALL


def test_killed_recorder_keeps_a_full_ring_whole(tmp_path):
    folder = tmp_path / "small"
    folder.mkdir()
    recording(folder, rounds=3, seed=3, key=None, max_store_bytes=262_144)
    assert (folder / "device.db").stat().st_size <= 262_144


def acknowledging(folder, *, rounds, seed):
    random, numbers = Random(seed), count()
    with new_store(folder) as store:
        store.set_consent(Purpose.NOTICES, granted=True, now=NOW)
    path, path_of_states = store.path, [NoticeState.SHOWN, NoticeState.ACCEPTED]
    acknowledged, cuts = set(), 0
    while cuts < rounds or not acknowledged:
        cuts += 1

        def acknowledge(say):
            with TelemetryStore(path) as store:
                say("begun")
                while True:
                    number = f"{os.getpid():016x}{next(numbers):016x}"
                    store.keep_notice(number, sequence=1, version=2, body="{}", now=NOW)
                    for state in path_of_states:
                        answer_notice(store, number, state, device_id="device-1", now=NOW)
                    say(number)

        acknowledged |= set(killed(acknowledge, after_s=random.uniform(0.0, 0.02)))
        with TelemetryStore(path) as store:
            assert is_sound(store)
            notices = {notice.message_id: notice for notice in store.notices()}
            acks = [decode(waiting.payload, Ack) for waiting in store.outbox()]
        assert acknowledged <= notices.keys()
        assert all(notices[number].version == 4 for number in acknowledged)
        # A change of state and its acknowledgement are one transaction.
        for number, notice in list(notices.items())[-20:]:
            said = [(ack.state, ack.version) for ack in acks if ack.correlation == number]
            made = [(state, 3 + place) for place, state in enumerate(path_of_states)]
            assert said == made[: notice.version - 2]
    return acknowledged


def test_killed_agent_acknowledges_what_it_has_noted(tmp_path):
    assert acknowledging(tmp_path, rounds=4, seed=4)


@pytest.mark.soak
def test_killed_agent_acknowledges_what_it_has_noted_at_fifty_points(tmp_path):
    assert acknowledging(tmp_path, rounds=50, seed=5)


def migrating(folder, *, rounds, seed):
    random, path, finished = Random(seed), folder / "device.db", 0
    took_s = None
    for _ in range(rounds + 1):
        for file in folder.iterdir():
            file.unlink()
        shutil.copyfile(FOLDER / "store_v1.sqlite", path)

        def migrate(say):
            say("begun")
            TelemetryStore(path).close()
            say("done")

        if took_s is None:
            took_s = 1.2 * duration_s(migrate)
            continue
        finished += bool(killed(migrate, after_s=random.uniform(0.0, took_s)))
        with TelemetryStore(path) as store:
            assert is_sound(store)
            assert store.num_readings() == 161
            assert store.consents()[Purpose.SUMMARIES].granted
            assert store.rows("SELECT version FROM schema_version") == [(2,)]
    return finished


def test_killed_migration_is_done_or_begun_again(tmp_path):
    assert 0 <= migrating(tmp_path, rounds=6, seed=6) <= 6


@pytest.mark.soak
def test_killed_migration_is_done_or_begun_again_at_fifty_points(tmp_path):
    assert 0 < migrating(tmp_path, rounds=50, seed=7) < 50


def open_under_either(path):
    try:
        return TelemetryStore(path)
    except StoreKeyError:
        finish_rewrite(path, new_key=key)
        return TelemetryStore(path, key=key)


def sealing(folder, *, rounds, seed):
    random, path, sealed = Random(seed), folder / "device.db", 0
    with new_store(folder) as store:
        fill(store)
        said = store.export()
    whole = path.read_bytes()
    took_s = None
    for _ in range(rounds + 1):
        for file in folder.iterdir():
            file.unlink()
        path.write_bytes(whole)

        def seal(say):
            say("begun")
            rewrite_store(path, key=None, new_key=key)

        if took_s is None:
            took_s = 1.2 * duration_s(seal)
            continue
        killed(seal, after_s=random.uniform(0.0, took_s))
        with open_under_either(path) as store:
            assert is_sound(store)
            assert store.export() == said
            sealed += store.is_sealed
            store.record(reading(NOW), now=NOW)
    return sealed


def test_killed_sealing_leaves_one_whole_store(tmp_path):
    assert 0 <= sealing(tmp_path, rounds=6, seed=8) <= 6


@pytest.mark.soak
def test_killed_sealing_leaves_one_whole_store_at_fifty_points(tmp_path):
    assert 0 < sealing(tmp_path, rounds=50, seed=9) < 50


def recovering(folder, *, rounds, seed):
    random, path = Random(seed), folder / "device.db"
    with new_store(folder) as store:
        fill(store)
    raw = sqlite3.connect(path)
    query = "SELECT rootpage FROM sqlite_schema WHERE name = 'reading'"
    page = raw.execute(query).fetchone()[0]
    raw.close()
    damaged, copied = bytearray(path.read_bytes()), copy_path(path).read_bytes()
    damaged[(page - 1) * 4096 : page * 4096] = b"\xa5" * 4096
    took_s = None
    for _ in range(rounds + 1):
        for file in folder.iterdir():
            file.unlink()
        path.write_bytes(damaged)
        copy_path(path).write_bytes(copied)

        def recover(say):
            say("begun")
            store, _ = open_or_recover(path, NOW)
            store.record(reading(NOW), now=NOW)
            say("recorded")

        if took_s is None:
            took_s = 1.2 * duration_s(recover)
            continue
        said = killed(recover, after_s=random.uniform(0.0, took_s))
        store, _ = open_or_recover(path, NOW)
        with store:
            assert is_sound(store)
            assert store.profile == PROFILE
            assert store.num_readings() in ({1} if said else {0, 1})
        assert len(quarantined(path)) == 1
        assert quarantined(path)[0].read_bytes() == damaged
    return True


def test_killed_recovery_is_done_or_begun_again(tmp_path):
    assert recovering(tmp_path, rounds=6, seed=10)


@pytest.mark.soak
def test_killed_recovery_is_done_or_begun_again_at_fifty_points(tmp_path):
    assert recovering(tmp_path, rounds=50, seed=11)


def erasing(folder, *, rounds, seed):
    random, path = Random(seed), folder / "device.db"
    took_s = None
    for _ in range(rounds + 1):
        for file in folder.iterdir():
            file.unlink()
        with new_store(folder) as store:
            store.record_many(fading_life(days=10), now=NOW)

        def erase(say):
            say("begun")
            erase_device(path, now=NOW)
            say("erased")

        if took_s is None:
            took_s = 1.2 * duration_s(erase)
            continue
        said = killed(erase, after_s=random.uniform(0.0, took_s))
        try:
            erase_device(path, now=NOW)
            assert not said
        except StoreMissingError:
            pass
        assert [file.name for file in folder.iterdir()] == ["device.db.erased.json"]
        assert {tombstone.device_hash is None for tombstone in tombstones(path)} == {False}
    return True


def test_killed_erasure_can_be_asked_for_again(tmp_path):
    assert erasing(tmp_path, rounds=6, seed=12)


@pytest.mark.soak
def test_killed_erasure_can_be_asked_for_again_at_fifty_points(tmp_path):
    assert erasing(tmp_path, rounds=50, seed=13)
