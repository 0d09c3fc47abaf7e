"""A store that the first release wrote loads for ever, and says the same."""

import json
import shutil
import sqlite3

import pytest

from edge_client.errors import StoreError
from edge_client.store.mailbox import Purpose
from edge_client.store.profile_copy import read_profile_copy
from edge_client.store.recovery import open_or_recover
from edge_client.store.rewrite import rewrite_store
from edge_client.store.row_cipher import PlainRows
from edge_client.store.sqlite_file import SCHEMA_VERSION
from edge_client.telemetry_store import TelemetryStore
from models.wire.messages import NoticeState
from tests.golden.make_edge_store import FOLDER, golden_key
from tests.support.edge_devices import NOW, PROFILE, reading

SAID = json.loads((FOLDER / "store_v1.json").read_text())


@pytest.fixture
def path(tmp_path):
    return shutil.copyfile(FOLDER / "store_v1.sqlite", tmp_path / "device.db")


def test_store_of_version_1_says_what_it_said(path):
    with TelemetryStore(path) as store:
        says = store.export()
        assert store.rows("SELECT version FROM schema_version") == [(SCHEMA_VERSION,)]
        store.check()
    assert {name: says[name] for name in SAID} == SAID


@pytest.mark.parametrize(
    ("name", "key"),
    [("store_v2", None), ("store_v2_sealed", golden_key), ("store_v2_checksums", None)],
)
def test_store_of_version_2_says_what_it_said(tmp_path, name, key):
    path = shutil.copyfile(FOLDER / f"{name}.sqlite", tmp_path / "device.db")
    said = json.loads((FOLDER / "store_v2.json").read_text())
    with TelemetryStore(path, key=key) as store:
        store.check()
        says = store.export()
        store.record(reading(NOW), now=NOW)
    assert {name: says[name] for name in said} == said
    assert said["day_rows"] == {"20604": b"a day".hex(), "20605": b"another".hex()}


@pytest.mark.parametrize(
    ("name", "lengths"), [("store_v1", [32]), ("store_v2", [32]), ("store_v2_checksums", [36])]
)
def test_readings_of_before_are_kept_beside_those_with_checksums(tmp_path, name, lengths):
    path = shutil.copyfile(FOLDER / f"{name}.sqlite", tmp_path / "device.db")
    query = "SELECT DISTINCT length(measurements) FROM reading ORDER BY 1"
    with TelemetryStore(path) as store:
        assert [row[0] for row in store.rows(query)] == lengths
        before = store.telemetry()
        store.record(reading(NOW), now=NOW)
        assert [row[0] for row in store.rows(query)] == sorted({*lengths, 36})
        after = store.telemetry()
        store.check()
    assert after.values[:-1].tobytes() == before.values.tobytes()
    assert after.at_s[:-1].tolist() == before.at_s.tolist()


def test_store_of_version_1_works_on(path):
    with TelemetryStore(path) as store:
        assert store.profile == PROFILE
        store.record(reading(NOW, usage_hours=3.0), now=NOW)
        store.set_consent(Purpose.TRAINING, granted=True, now=NOW)
        assert store.set_notice_state("n-2", NoticeState.SHOWN).version == 3
        number = store.outbox()[0].number
        store.put_out(Purpose.NOTICES, "t", b"x")
        assert [message.number for message in store.outbox()] == [number, number + 1]
    with TelemetryStore(path) as again:
        assert again.num_readings() == len(SAID["readings"]) + 1
        assert again.consents()[Purpose.TRAINING].granted


def test_store_of_version_1_gets_a_copy_of_its_profile(path):
    TelemetryStore(path).close()
    facts = read_profile_copy(path).facts(PlainRows(path))
    assert facts["profile"]["device_id"] == PROFILE.device_id
    assert facts["language"] == "de"
    assert facts["retention_days"] == 400


def test_store_of_version_1_can_be_sealed_and_limited(path):
    rewrite_store(path, key=None, new_key=lambda: bytes(32))
    with TelemetryStore(path, key=lambda: bytes(32)) as store:
        says = store.export()
        store.set_max_store_bytes(300_000)
    assert {name: says[name] for name in SAID} == SAID


def test_limit_makes_a_store_of_version_1_shrinkable(path):
    with TelemetryStore(path) as store:
        store.set_max_store_bytes(300_000)
        assert store.rows("PRAGMA auto_vacuum") == [(2,)]
        assert store.num_readings() == len(SAID["readings"])


def test_damaged_store_of_version_1_keeps_its_profile(path):
    content = bytearray(path.read_bytes())
    root = root_page(path, "reading")
    content[root * 4096 - 4096 : root * 4096] = b"\xa5" * 4096
    path.write_bytes(content)
    store, recovery = open_or_recover(path, NOW)
    with store:
        assert store.profile == PROFILE
        assert store.language == "de"
        assert not any(said.granted for said in store.consents().values())
    assert recovery.consents_kept == ()


def test_migration_that_fails_leaves_version_1(path, monkeypatch):
    def breaks(*_):
        raise sqlite3.OperationalError("disk I/O error")

    monkeypatch.setattr("edge_client.store.schema.PlainRows.proof", breaks)
    with pytest.raises(StoreError):
        TelemetryStore(path)
    monkeypatch.undo()
    raw = sqlite3.connect(path)
    assert raw.execute("SELECT version FROM schema_version").fetchall() == [(1,)]
    assert [row[1] for row in raw.execute("PRAGMA table_info(fact)")] == ["name", "value"]
    raw.close()
    with TelemetryStore(path) as store:
        assert store.num_readings() == len(SAID["readings"])


def root_page(path, table):
    raw = sqlite3.connect(path)
    page = raw.execute("SELECT rootpage FROM sqlite_schema WHERE name = ?", (table,)).fetchone()[0]
    raw.close()
    return page
