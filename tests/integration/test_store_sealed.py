"""A store sealed under a key: nothing to read without it, nothing to move within it."""

import json
import sqlite3
from datetime import timedelta
from multiprocessing import get_context

import pytest

from edge_client.cli import run
from edge_client.errors import StoreBusyError, StoreDamagedError, StoreError, StoreKeyError
from edge_client.store.mailbox import Purpose
from edge_client.store.profile_copy import copy_path, read_profile_copy
from edge_client.store.recovery import open_or_recover
from edge_client.store.rewrite import finish_rewrite, rewrite_store
from edge_client.store.row_cipher import SealedRows
from edge_client.telemetry_store import TelemetryStore
from tests.golden.make_edge_store import fill
from tests.support.edge_devices import NOW, PROFILE, fading_life, new_store, reading

KEY = bytes(range(32))
OTHER_KEY = bytes(32)
SECRETS = (b"device-1", b"NMC111", b"2950.0", b'summary"}', b"f\xc3\xbcr sp", b"swelling", b"shown")


def key():
    return KEY


def other_key():
    return OTHER_KEY


@pytest.fixture
def path(tmp_path):
    with new_store(tmp_path, key=key) as store:
        fill(store)
    return store.path


def raw_change(path, statement, *values):
    raw = sqlite3.connect(path)
    with raw:
        assert raw.execute(statement, values).rowcount > 0
    raw.close()


def test_sealed_store_says_what_a_plain_one_says(path, tmp_path):
    (tmp_path / "plain").mkdir()
    with new_store(tmp_path / "plain") as plain, TelemetryStore(path, key=key) as sealed:
        fill(plain)
        assert sealed.export() == plain.export()
        assert sealed.is_sealed
        assert not plain.is_sealed


def test_nothing_of_the_battery_or_the_owner_can_be_read(path):
    files = [file.read_bytes() for file in path.parent.iterdir()]
    packed = [reading(NOW).values()[0].hex().encode()]
    for secret in (*SECRETS[1:], *packed):
        assert not any(secret in content for content in files), secret
    # Its name stands in the topic of a waiting message, and nowhere else.
    assert path.read_bytes().count(SECRETS[0]) == 1


@pytest.mark.parametrize(
    ("given", "says"),
    [
        (None, "is sealed, and no key was given"),
        (other_key, "is sealed under another key"),
        (lambda: b"short", "not 32 bytes long"),
    ],
)
def test_without_its_key_a_store_is_one_clear_error(path, given, says):
    before = path.read_bytes()
    for opening in (TelemetryStore, lambda *p, **k: open_or_recover(*p, NOW, **k)):
        with pytest.raises(StoreKeyError, match=says) as refused:
            opening(path, key=given)
        assert refused.value.exit_code == 4
    assert path.read_bytes() == before


def test_key_for_a_store_in_the_clear_is_an_error(tmp_path):
    new_store(tmp_path).close()
    with pytest.raises(StoreKeyError, match="is not sealed, and a key was given"):
        TelemetryStore(tmp_path / "device.db", key=key)


@pytest.mark.parametrize(
    ("statement", "look"),
    [
        ("UPDATE reading SET at_s = at_s + 60 WHERE sequence = 5", lambda s: s.telemetry()),
        ("UPDATE reading SET sequence = 9999 WHERE sequence = 5", lambda s: s.telemetry()),
        (
            "UPDATE reading SET measurements = (SELECT max(measurements) FROM reading)",
            lambda s: s.telemetry(),
        ),
        ("UPDATE consent SET granted = 1 WHERE purpose = 'training'", lambda s: s.consents()),
        ("UPDATE notice SET version = version + 1", lambda s: s.notices()),
        ("UPDATE notice SET sequence = sequence + 1", lambda s: s.notices()),
        ("UPDATE outbox SET topic = 'elsewhere'", lambda s: s.outbox()),
        ("UPDATE outbox SET purpose = 'notices'", lambda s: s.outbox()),
        (
            "UPDATE fact SET value = (SELECT max(value) FROM fact WHERE name = 'language')",
            lambda s: s.retention_days,
        ),
    ],
)
def test_row_that_was_moved_or_changed_is_found(path, statement, look):
    raw_change(path, statement)
    with TelemetryStore(path, key=key) as store, pytest.raises(StoreDamagedError):
        look(store)


def test_damaged_name_of_the_key_is_damage_and_no_wrong_key(path):
    raw_change(path, "UPDATE sealing SET value = x'00'")
    with pytest.raises(StoreDamagedError, match="the name of its key"):
        TelemetryStore(path, key=key)
    with pytest.raises(StoreKeyError, match="another key"):
        TelemetryStore(path, key=other_key)


def test_sealed_store_is_recovered_under_its_key(path):
    raw_change(path, "UPDATE reading SET at_s = at_s + 60 WHERE sequence = 5")
    store, recovery = open_or_recover(path, NOW, key)
    with store:
        assert store.is_sealed
        assert store.profile == PROFILE
        assert store.consents()[Purpose.SUMMARIES].granted
        assert store.references().capacity_mah == 2950.0
    assert set(recovery.consents_kept) == {"training", "summaries", "notices"}


def test_two_years_of_sealed_readings_fit_in_a_megabyte(tmp_path):
    with new_store(tmp_path, key=key) as store:
        store.record_many(fading_life(days=730), now=NOW)
        store.keep_day_rows([(day, bytes(64)) for day in range(20_000, 20_730)])
    assert store.path.stat().st_size < 500_000


def test_plain_store_is_sealed_whole(tmp_path):
    with new_store(tmp_path) as store:
        fill(store)
        store.keep_day_rows([(20_000, b"day")])
        store.count_refusal("naive_time")
        store.sent(store.outbox()[0].number)
        store.put_out(Purpose.NOTICES, "t", b"last")
        said = store.export()
    tmp_path.joinpath("device.db.damaged-20260101T000000Z").write_bytes(b"NMC111")
    rewrite_store(store.path, key=None, new_key=key)
    with TelemetryStore(store.path, key=key) as sealed:
        assert sealed.export() == said
        assert [message.number for message in sealed.outbox()] == [2]
        sealed.record(reading(NOW), now=NOW)
        assert sealed.telemetry_from(162)[0].tolist() == [162]
    for file in tmp_path.iterdir():
        assert b"NMC111" not in file.read_bytes(), file
    facts = read_profile_copy(store.path).facts(SealedRows(store.path, KEY))
    assert facts["profile"]["chemistry"] == "NMC111"
    with pytest.raises(StoreKeyError):
        TelemetryStore(store.path)


def test_key_is_changed_and_taken_away(path):
    with TelemetryStore(path, key=key) as store:
        said = store.export()
    rewrite_store(path, key=key, new_key=other_key)
    with pytest.raises(StoreKeyError):
        TelemetryStore(path, key=key)
    rewrite_store(path, key=other_key, new_key=None)
    with TelemetryStore(path) as plain:
        assert plain.export() == said
        plain.check()


def test_store_that_another_process_has_open_is_not_sealed(tmp_path):
    with new_store(tmp_path) as store:
        store.record(reading(), now=NOW)
        with pytest.raises(StoreBusyError):
            rewrite_store(store.path, key=None, new_key=key)
        store.record(reading(NOW - timedelta(hours=6)), now=NOW)
        assert store.num_readings() == 2
    with TelemetryStore(store.path) as again:
        assert again.num_readings() == 2


def test_seal_that_a_power_cut_ended_is_finished_by_a_second_call(path):
    copy_path(path).write_text(json.dumps({"format": "fedcell-store-profile"}))
    finish_rewrite(path, new_key=key)
    assert read_profile_copy(path).is_sealed


def test_who_has_an_old_file_open_follows_the_new_one(tmp_path):
    """A file that was replaced is never written to by those who still hold it."""
    with new_store(tmp_path) as store:
        store.record(reading(), now=NOW)
        store.path.rename(tmp_path / "elsewhere.db")
        (tmp_path / "device.db-wal").unlink()
        (tmp_path / "device.db-shm").unlink()
        new_store(tmp_path).close()
        assert store.num_readings() == 0
        store.record(reading(), now=NOW)
    with TelemetryStore(tmp_path / "device.db") as fresh:
        assert fresh.num_readings() == 1


def seal_in_a_process(path, answers):
    try:
        rewrite_store(path, key=None, new_key=key)
        answers.put("sealed")
    except StoreError as error:
        answers.put(type(error).__name__)


def test_reading_recorded_while_a_store_is_sealed_is_kept_or_refused(tmp_path):
    with new_store(tmp_path) as store:
        store.record_many(fading_life(days=300), now=NOW)
    path = store.path
    context = get_context("fork")
    answers = context.SimpleQueue()
    sealing = context.Process(target=seal_in_a_process, args=(path, answers))
    sealing.start()
    kept = 0
    while sealing.is_alive():
        try:
            with TelemetryStore(path) as store:
                store.record(reading(NOW - timedelta(minutes=kept)), now=NOW)
            kept += 1
        except StoreError:
            continue
    sealing.join()
    answer = answers.get()
    given = key if answer == "sealed" else None
    with TelemetryStore(path, key=given) as store:
        assert store.num_readings() == 1200 + kept


@pytest.mark.parametrize(
    "words",
    [
        ("status",),
        ("consent", "grant", "summaries"),
        ("owner", "--language", "de"),
        ("failed", "--at", "2026-05-01"),
        ("outbox",),
        ("notices",),
        ("answer", "0" * 32, "accept"),
        ("predict", "--explain"),
        ("export",),
        ("update", "nothing.zip", "--allow-unsigned"),
    ],
    ids=lambda words: words[0],
)
def test_every_command_opens_a_sealed_store_under_its_key(path, tmp_path, capsys, words):
    key_file = tmp_path / "store.key"
    key_file.write_bytes(KEY)
    flags = ("--store", str(path), "--store-key", str(key_file))
    run([*words, *flags])

    said = capsys.readouterr()
    assert "--store-key" not in said.err
    assert run([*words, "--store", str(path)]) == 4
    assert "--store-key" in capsys.readouterr().err
