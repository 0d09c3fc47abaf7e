"""First boot from one image: keys and stores made once, copies found out, crashes survived."""

import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path
from random import Random

import pytest

from edge_client.cli import main
from edge_client.errors import CloneError, IdentityError, StoreMissingError
from edge_client.provisioning import identity as identity_module
from edge_client.provisioning.first_boot import add_identity
from edge_client.provisioning.identity import (
    device_id_from,
    identity_path,
    make_identity,
    own_identity,
    read_hardware_id,
    read_identity,
)
from edge_client.store.erasure import erase_device, ledger_path, tombstone_path, tombstones
from edge_client.store.quarantine import FORMER
from edge_client.telemetry_store import TelemetryStore
from models.wire.topics import checked_device_id
from server.device_keys import DeviceKeyFile
from tests.support.edge_devices import NOW, new_store, reading
from tests.support.system_parts import REPOSITORY

PROFILE = {
    "device_model": "Meter 3",
    "chemistry": "NMC111",
    "design_capacity_mah": 3000,
    "end_of_life_capacity_mah": 2400,
    "manufactured_at": "2024-01-01",
}
HERE, THERE = b"3d1219c7c4c5404aaa1f6d2a48adfda4", b"0f0e0d0c0b0a09080706050403020100"


@pytest.fixture
def run(tmp_path, monkeypatch, capsys):
    """Run a command on the one hardware of the test; returns exit code, answer and error line."""
    for name in ("STORE", "CONFIG", "HARDWARE_ID_FILE"):
        monkeypatch.delenv(f"FEDCELL_DEVICE_{name}", raising=False)
    hardware = tmp_path / "machine-id"
    hardware.write_bytes(HERE + b"\n")
    (tmp_path / "profile.json").write_text(json.dumps(PROFILE))

    def call(*arguments, folder="device"):
        store = tmp_path / folder / "device.db"
        settings = ["--store", str(store), "--hardware-id-file", str(hardware)]
        code = main([*arguments, *settings])
        said = capsys.readouterr()
        return code, said.out, said.err

    call.path = tmp_path / "device" / "device.db"
    call.hardware = hardware
    call.first_boot = [
        *("init", "--profile", str(tmp_path / "profile.json")),
        *("--device-id-from", "machine-id", "--first-boot", "--json"),
    ]
    return call


def test_first_boot_makes_keys_and_store_once_and_says_so_afterwards(run):
    code, out, err = run(*run.first_boot)
    assert (code, err) == (0, "")
    made = json.loads(out)
    keys = identity_path(run.path).read_bytes()

    assert json.loads(run(*run.first_boot)[1]) == made | {"made": False}
    assert made["device_id"] == device_id_from(HERE)
    assert HERE.decode() not in out + keys.decode()
    assert identity_path(run.path).read_bytes() == keys
    assert identity_path(run.path).stat().st_mode & 0o777 == 0o600
    assert "there already" in run(*run.first_boot[:-1])[1]


def test_without_the_flag_a_second_init_is_refused_and_names_it(run):
    run(*run.first_boot)
    code, _, err = run(*(word for word in run.first_boot if word != "--first-boot"))
    assert code == 3
    assert "exists already" in err
    assert "--first-boot" in err


def test_another_profile_is_refused_by_name(run, tmp_path):
    run(*run.first_boot)
    (tmp_path / "profile.json").write_text(json.dumps(PROFILE | {"chemistry": "LFP"}))
    code, _, err = run(*run.first_boot)
    assert code == 3
    assert "another profile (chemistry)" in err


def test_identity_prints_the_line_that_a_server_reads(run, tmp_path):
    device_id = json.loads(run(*run.first_boot)[1])["device_id"]
    code, line, _ = run("identity", "--json")
    (tmp_path / "keys.jsonl").write_text(line)
    keys = DeviceKeyFile(tmp_path / "keys.jsonl").of(device_id)
    identity = read_identity(run.path)

    assert code == 0
    assert keys.seal.to_bytes() == identity.opening_key.seal_key.to_bytes()
    assert keys.sign.to_bytes() == identity.signing_key.verify_key.to_bytes()
    text = run("identity")[1]
    assert line.strip() in text
    assert "bound to this one" in text
    assert identity.signing_key.to_bytes().hex() not in text + line + repr(identity)


def test_a_store_of_before_works_without_identity_until_it_gets_one(run):
    run.path.parent.mkdir()
    with new_store(run.path.parent) as store:
        assert own_identity(store, device_id="device-1", hardware_id=HERE) is None
    code, _, err = run("identity")
    assert code == 5
    assert "init --identity" in err

    assert json.loads(run("init", "--identity", "--json")[1])["made"] is True
    assert json.loads(run("init", "--identity", "--json")[1])["made"] is False
    assert list(json.loads(run("identity", "--json")[1])) == ["device-1"]
    with TelemetryStore(run.path) as store:
        assert own_identity(store, device_id="device-1", hardware_id=HERE).device_id == "device-1"


def talks(path, hardware_id=THERE):
    with TelemetryStore(path) as store:
        return own_identity(store, device_id=store.profile.device_id, hardware_id=hardware_id)


def test_a_copied_disk_is_refused_on_other_hardware(run):
    run(*run.first_boot)
    run.hardware.write_bytes(THERE)
    with pytest.raises(CloneError, match="other hardware: this is a copy"):
        talks(run.path)
    for words in (run.first_boot, ["identity"], ["run", "--once"]):
        code, _, err = run(*words)
        assert (code, err.count("\n")) == (5, 1)
        assert "init --new-device" in err


def test_a_copy_without_the_identity_file_is_refused_too(run):
    run(*run.first_boot)
    identity_path(run.path).unlink()
    with pytest.raises(IdentityError, match="is missing"):
        talks(run.path, HERE)


def test_a_copied_store_beside_another_devices_identity_is_refused(run, tmp_path):
    run(*run.first_boot)
    run.hardware.write_bytes(THERE)
    run(*run.first_boot, folder="other")
    other = tmp_path / "other" / "device.db"
    shutil.copy(run.path, other)
    with pytest.raises(CloneError, match="another identity"):
        talks(other)


def test_hardware_that_no_longer_says_its_identifier_is_no_proof(run):
    run(*run.first_boot)
    with pytest.raises(IdentityError, match="--hardware-id-file"):
        talks(run.path, None)


def test_hardware_without_an_identifier_gets_an_identity_that_is_bound_to_nothing(tmp_path):
    with new_store(tmp_path) as store:
        assert add_identity(store, hardware_id=None)
        assert own_identity(store, device_id="device-1", hardware_id=THERE).hardware is None


@pytest.mark.parametrize("old", ["aside", "erase"])
def test_a_copy_begins_afresh_as_a_new_device(run, old):
    former = json.loads(run(*run.first_boot)[1])["device_id"]
    with TelemetryStore(run.path) as store:
        store.record(reading(), now=NOW)
    Path(f"{run.path}.ledger").write_text("what the other device has spent")
    keys = identity_path(run.path).read_bytes()
    run.hardware.write_bytes(THERE)

    code, out, err = run(*run.first_boot, "--new-device", "--old-store", old)
    assert (code, err) == (0, "")
    device_id = json.loads(out)["device_id"]
    assert device_id == device_id_from(THERE) != former
    assert list(json.loads(run("identity", "--json")[1])) == [device_id]
    with TelemetryStore(run.path) as store:
        assert store.num_readings() == 0
    assert ledger_path(run.path).read_bytes() == b""
    aside = Path(f"{run.path}{FORMER}1")
    assert aside.exists() is (old == "aside")
    if old == "aside":
        assert json.loads(out)["set_aside"] == str(aside)
        with TelemetryStore(aside / "device.db") as store:
            assert (store.num_readings(), store.profile.device_id) == (1, former)
        assert (aside / "device.db.ledger").exists()
    everything = [p for p in run.path.parent.rglob("*") if p.is_file()]
    assert all(keys not in p.read_bytes() for p in everything)


@pytest.mark.parametrize("old", ["aside", "erase"])
def test_this_hardware_is_no_new_device(run, old):
    """Else a spent privacy ledger would begin at nothing, under the same name."""
    run(*run.first_boot)
    with TelemetryStore(run.path) as store:
        store.record(reading(), now=NOW)
    ledger_path(run.path).write_text("what this device has spent")
    before = {p.name: p.read_bytes() for p in run.path.parent.iterdir()}

    anew = [word for word in run.first_boot if word != "--first-boot"]
    code, _, err = run(*anew, "--new-device", "--old-store", old)
    assert (code, err.count("\n")) == (3, 1)
    assert "was made on this hardware: this is no new device" in err
    code, out, _ = run(*run.first_boot, "--new-device", "--old-store", old)
    assert (code, json.loads(out)["made"]) == (0, False)
    assert {p.name: p.read_bytes() for p in run.path.parent.iterdir()} == before


@pytest.mark.parametrize("old", ["aside", "erase"])
@pytest.mark.parametrize("is_erased", [False, True], ids=["store", "erased"])
def test_the_same_device_keeps_ledger_and_erasures_though_its_keys_are_gone(run, old, is_erased):
    run(*run.first_boot)
    assert run("erase", "--yes")[0] == 0
    if not is_erased:
        assert run(*run.first_boot)[0] == 0
    ledger_path(run.path).write_text("what this device has spent")
    identity_path(run.path).unlink()

    assert run(*run.first_boot, "--new-device", "--old-store", old)[0] == 0
    assert ledger_path(run.path).read_text() == "what this device has spent"
    assert len(tombstones(run.path)) == 1


@pytest.mark.parametrize("name", ["device.db", "device[1].db"])
def test_erase_takes_the_stores_of_former_devices_too(run, tmp_path, name):
    path = tmp_path / name
    for number in (1, 2):
        folder = path.with_name(f"{name}{FORMER}{number}")
        folder.mkdir()
        (folder / name).write_text("readings")
        (folder / f"{name}.models").mkdir()
        if number == 1:
            ledger_path(folder / name).write_text("spent")
            tombstone_path(folder / name).write_text("erased")
    erase_device(path, now=NOW)
    left = sorted(str(p.relative_to(tmp_path)) for p in tmp_path.rglob(f"{name[:6]}*"))
    assert left == [
        f"{name}.erased.json",
        f"{name}{FORMER}1",
        f"{name}{FORMER}1/{name}.erased.json",
        f"{name}{FORMER}1/{name}.ledger",
    ]
    with pytest.raises(StoreMissingError):
        erase_device(path, now=NOW)


def test_keys_are_made_for_nothing_that_is_wrong(run):
    code, _, _ = run(*run.first_boot, "--language", "xx")
    assert code == 2
    assert list(run.path.parent.glob("*")) == []


@pytest.mark.parametrize(
    ("content", "what"),
    [(b"", "says no identifier"), (b"uninitialized\n", "says no identifier"), (None, "no such")],
)
def test_a_hardware_file_that_says_nothing_is_named(run, content, what):
    run.hardware.unlink()
    if content is not None:
        run.hardware.write_bytes(content)
    code, _, err = run(*run.first_boot)
    assert code in {3, 4}
    assert what in err


def test_the_first_file_that_says_something_counts(tmp_path):
    serial = tmp_path / "serial"
    serial.write_bytes(b"10000000abcdef\0")
    empty = tmp_path / "empty"
    empty.write_text("uninitialized\n")
    assert read_hardware_id((tmp_path / "none", empty, serial)) == b"10000000abcdef"
    assert read_hardware_id((empty,)) is None
    assert checked_device_id(device_id_from(b"\xff\xfe")) == device_id_from(b"\xff\xfe")


@pytest.mark.parametrize(
    "content", [b"", b"{", b"[]", b'{"format": 1}', b'{"format": 2, "device_id": "a"}', b"\xff"]
)
def test_a_damaged_identity_is_refused_and_not_replaced(run, content):
    run(*run.first_boot)
    identity_path(run.path).write_bytes(content)
    for words in (run.first_boot, ["identity"], ["init", "--identity"]):
        code, _, err = run(*words)
        assert (code, err.count("\n")) == (5, 1)
    assert identity_path(run.path).read_bytes() == content


def test_a_folder_without_hard_links_gets_an_identity_too(tmp_path, monkeypatch):
    def refuse(_source, _target):
        raise OSError(1, "Operation not permitted")

    monkeypatch.setattr(identity_module.os, "link", refuse)
    identity, made = make_identity(tmp_path / "d.db", device_id="a", hardware_id=HERE)
    again, made_again = make_identity(tmp_path / "d.db", device_id="a", hardware_id=HERE)
    assert (made, made_again) == (True, False)
    assert again.key_id == identity.key_id
    assert [p.name for p in tmp_path.iterdir()] == ["d.db.identity.json"]
    with pytest.raises(IdentityError, match="is that of a, not of b"):
        make_identity(tmp_path / "d.db", device_id="b", hardware_id=HERE)


class PowerCutError(BaseException):
    """Ends a command where it stands."""


def cut_at(monkeypatch, number):
    """Have the power go at the n-th call that makes something durable or takes it away."""
    left = [number]

    def watched(real):
        def call(*arguments, **named):
            left[0] -= 1
            if left[0] < 0:
                raise PowerCutError
            return real(*arguments, **named)

        return call

    for name in ("fsync", "link", "replace", "rename", "unlink"):
        monkeypatch.setattr(os, name, watched(getattr(os, name)))
    return left


@pytest.mark.parametrize("is_copy", [False, True], ids=["first boot", "new device"])
def test_power_may_go_at_any_step_of_a_first_boot(run, is_copy):
    """Whatever step is the last, the next boot ends with one device that works."""
    words = [*run.first_boot, *(["--new-device"] if is_copy else [])]
    steps = 0
    while True:
        shutil.rmtree(run.path.parent, ignore_errors=True)
        if is_copy:
            run.hardware.write_bytes(THERE)
            run(*run.first_boot)
            run.hardware.write_bytes(HERE)
        with pytest.MonkeyPatch.context() as patch:
            cut_at(patch, steps)
            try:
                run(*words)
                was_cut = False
            except PowerCutError:
                was_cut = True
        assert run(*words)[0] == 0
        code, line, _ = run("identity", "--json")
        assert (code, list(json.loads(line))) == (0, [device_id_from(HERE)])
        assert talks(run.path, HERE) is not None
        assert list(run.path.parent.glob("*.part")) == []
        assert list(run.path.parent.glob(".*.part")) == []
        if not was_cut:
            break
        steps += 1
    assert steps >= 4


def test_killed_first_boots_leave_one_device(run):
    """SIGKILL at random moments of real processes; the keys that a whole boot left stay."""
    random = Random(3)
    command = [
        *(sys.executable, "-m", "edge_client.cli", *run.first_boot),
        *("--store", str(run.path), "--hardware-id-file", str(run.hardware)),
    ]
    for _ in range(6):
        shutil.rmtree(run.path.parent, ignore_errors=True)
        process = subprocess.Popen(
            command, cwd=REPOSITORY, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        deadline = time.monotonic() + 20
        while not run.path.parent.exists() and process.poll() is None:
            assert time.monotonic() < deadline
            time.sleep(0.001)
        time.sleep(random.uniform(0.0, 0.02))
        process.kill()
        process.wait()
        before = read_identity(run.path)
        assert run(*run.first_boot)[0] == 0
        assert before is None or read_identity(run.path).key_id == before.key_id
        assert talks(run.path, HERE).device_id == device_id_from(HERE)
