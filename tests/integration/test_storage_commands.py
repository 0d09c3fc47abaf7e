"""`check`, `seal`, `erase`, `export` and `init` of `fedcell-device`, on a store and its files."""

import json
import sqlite3

import pytest

from edge_client.cli import main
from edge_client.errors import StoreForeignError, StoreMissingError
from edge_client.store.erasure import (
    Tombstone,
    erase_device,
    ledger_path,
    tombstone_path,
    tombstones,
)
from edge_client.store.profile_copy import hash_of_device
from edge_client.store.quarantine import quarantined
from edge_client.telemetry_store import TelemetryStore
from privacy.events import PublicData
from privacy.ledger import next_entry
from tests.support.edge_devices import NOW, fading_life, new_store, reading

KEY = bytes(range(32))
MADE = (
    "--device-id=device-1",
    "--device-model=m",
    "--chemistry=NMC",
    "--design-capacity-mah=3000",
    "--end-of-life-capacity-mah=2400",
    "--manufactured-at=2024-01-01",
)


@pytest.fixture
def path(tmp_path):
    with new_store(tmp_path) as store:
        store.record_many(fading_life(days=10), now=NOW)
    return store.path


@pytest.fixture
def run(tmp_path, capsys):
    def call(*words):
        code = main(["--store", str(tmp_path / "device.db"), *words])
        said = capsys.readouterr()
        return code, said.out, said.err

    return call


@pytest.fixture
def key_file(tmp_path):
    file = tmp_path / "key"
    file.write_bytes(KEY)
    return str(file)


def damage(path):
    raw = sqlite3.connect(path)
    query = "SELECT rootpage FROM sqlite_schema WHERE name = 'reading'"
    page = raw.execute(query).fetchone()[0]
    raw.close()
    with path.open("r+b") as file:
        file.seek((page - 1) * 4096)
        file.write(b"\xa5" * 4096)


def test_check_says_that_a_store_is_sound(run, path):
    assert run("check") == (0, "the store is sound; begun anew 0 times\n", "")


@pytest.mark.parametrize(
    "change",
    [
        "measurements = cast(x'ff' || substr(measurements, 2) AS blob)",
        "measurements = cast(substr(measurements, 1, 35) || x'ff' AS blob)",
        "measurements = substr(measurements, 1, 20)",
        "measurements = 7",
        "at_s = at_s + 1",
        "at_s = 'noon'",
    ],
)
def test_one_changed_reading_in_the_clear_is_found(run, path, change):
    raw = sqlite3.connect(path)
    raw.execute(f"UPDATE reading SET {change} WHERE sequence = 7")  # noqa: S608
    raw.commit()
    raw.close()
    code, out, _ = run("check")
    assert (code, "a row of reading does not verify" in out) == (1, True)
    for words in (["predict"], ["export"]):
        code, out, err = run(*words)
        assert (code, out) == (3, "")
        assert "check --repair" in err
    assert run("check", "--repair", "--now", NOW.isoformat())[0] == 0
    assert run("check")[0] == 0


def test_check_says_no_and_repair_begins_anew(run, path):
    damage(path)
    code, out, _ = run("check", "--json")
    assert code == 1
    assert json.loads(out)["sound"] is False
    code, out, _ = run("check", "--repair", "--now", NOW.isoformat())
    assert code == 0
    assert out.startswith(f"{path}: is damaged (")
    assert "; begun anew, once so far\nset aside: " in out
    assert "device.db.damaged-20260601T120000Z" in out
    code, out, _ = run("check", "--json")
    told = json.loads(out)
    assert (code, told["sound"], told["recoveries"]) == (0, True, 1)
    assert told["set_aside"] == [str(quarantined(path)[0])]
    assert run("check", "--repair")[1] == "the store is sound; nothing was changed\n"


def test_damage_names_the_command_that_repairs_it(run, path):
    damage(path)
    code, _, err = run("export")
    assert code == 3
    assert "fedcell-device check --repair" in err


def test_store_is_sealed_and_then_needs_its_key(run, path, key_file):
    before = json.loads(run("export")[1])
    code, out, _ = run("seal", "--new-key", key_file)
    assert code == 0
    assert f"--store-key {key_file}" in out
    code, out, err = run("export")
    assert (code, out) == (4, "")
    assert "is sealed, and no key was given" in err
    code, out, _ = run("--store-key", key_file, "export")
    assert (code, json.loads(out)) == (0, before)
    assert run("--store-key", key_file, "record", "--usage-hours", "1")[0] == 0
    assert run("--store-key", key_file, "check")[0] == 0


def test_repair_of_a_store_that_is_gone_says_so(run, path):
    path.unlink()
    code, out, _ = run("check", "--repair", "--now", NOW.isoformat())
    assert code == 0
    assert out.splitlines() == [
        f"{path}: there is no store here; begun anew, once so far",
        "there was no file to set aside",
        "consents that were readable intact, and hold: none",
    ]
    assert run("check")[1] == "the store is sound; begun anew once\n"


def test_init_makes_a_sealed_limited_store(run, tmp_path, key_file):
    code, _, err = run("--store-key", key_file, "init", *MADE, "--max-store-bytes", "500000")
    assert (code, err) == (0, "")
    with TelemetryStore(tmp_path / "device.db", key=lambda: KEY) as store:
        assert store.max_store_bytes == 500_000
        assert store.is_sealed


def test_key_comes_from_the_environment_as_systemd_gives_it(run, tmp_path, key_file, monkeypatch):
    monkeypatch.setenv("FEDCELL_DEVICE_STORE_KEY", key_file)
    assert run("init", *MADE)[0] == 0
    assert run("record", "--usage-hours", "1")[0] == 0
    with TelemetryStore(tmp_path / "device.db", key=lambda: KEY) as store:
        assert store.num_readings() == 1


@pytest.mark.parametrize("sealed", [False, True])
def test_erase_removes_everything_but_ledger_and_tombstone(tmp_path, sealed):
    key = (lambda: KEY) if sealed else None
    with new_store(tmp_path, key=key) as store:
        store.record(reading(), now=NOW)
    path = store.path
    for name in (".damaged-20260101T000000Z", ".damaged-20260101T000000Z-wal", "-wal", ".new"):
        path.with_name(path.name + name).write_text("x")
    models = path.with_name("device.db.models")
    (models / "a").mkdir(parents=True)
    (models / "a" / "model.onnx").write_text("x")
    entry = next_entry(None, PublicData(sources=("made up",)), kind="public", at=NOW)
    ledger_path(path).write_text(entry.to_line() + "\n")
    removed = erase_device(path, now=NOW)
    assert len(removed) == 7
    left = {file.name for file in tmp_path.iterdir()}
    assert left == {"device.db.ledger", "device.db.erased.json"}
    assert tombstones(path) == (
        Tombstone(
            device_hash=hash_of_device("device-1"),
            erased_at=NOW.isoformat(),
            ledger_head=entry.hash,
        ),
    )
    assert "device-1" not in tombstone_path(path).read_text()


def test_ledger_that_does_not_verify_gives_no_head_and_stays(path):
    ledger_path(path).write_text("torn")
    erase_device(path, now=NOW)
    assert tombstones(path)[0].ledger_head is None
    assert ledger_path(path).read_text() == "torn"


def test_damaged_store_can_be_erased(run, path):
    path.write_bytes(b"\xa5" * 5_000)
    assert run("erase", "--yes")[0] == 0
    assert not path.exists()
    with pytest.raises(StoreMissingError):
        erase_device(path, now=NOW)


def test_what_is_not_ours_is_not_erased(tmp_path):
    path = tmp_path / "device.db"
    path.write_text("mine" * 100)
    with pytest.raises(StoreForeignError):
        erase_device(path, now=NOW)
    assert [file.name for file in tmp_path.iterdir()] == ["device.db"]


def test_init_after_erase_says_that_the_ledger_goes_on(run, path):
    erase_device(path, now=NOW)
    code, out, _ = run("init", *MADE)
    assert code == 0
    assert f"erased before, on {NOW.isoformat()}; the device's privacy ledger goes on" in out
    assert run("erase", "--yes", "--now", "2026-07-01")[0] == 0
    assert [said.erased_at[:10] for said in tombstones(path)] == ["2026-06-01", "2026-07-01"]


def test_who_still_has_an_erased_store_open_writes_no_more(path):
    with TelemetryStore(path) as store:
        erase_device(path, now=NOW)
        with pytest.raises(StoreMissingError):
            store.record(reading(), now=NOW)
        with pytest.raises(StoreMissingError):
            store.telemetry()


def test_repair_begins_a_damaged_record_of_models_anew(run, path):
    models = path.with_name(path.name + ".models")
    models.mkdir()
    (models / "slots.json").write_text("{")

    assert "the record of installed models is written anew" in run("check", "--repair")[1]
    assert "models" not in run("check", "--repair")[1]
