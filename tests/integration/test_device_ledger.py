"""A device's ledger on its disk: for life, and nothing is spent where it cannot be relied on."""

import json
import os
import shutil
import stat
import subprocess
import sys
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

from edge_client.errors import LedgerError, LedgerUnwritableError, ParticipationRefusedError
from edge_client.privacy.account import account_of
from edge_client.privacy.ledger_file import LEDGER_FACT, enrol, is_enrolled, read_device_ledger
from edge_client.privacy.participation import admit, debit
from edge_client.privacy.receipts import check_receipt, keep_receipt
from edge_client.provisioning.first_boot import retire
from edge_client.store.erasure import (
    erase_device,
    head_path,
    ledger_path,
    receipts_path,
    tombstone_path,
    tombstones,
)
from edge_client.store.mailbox import Purpose
from edge_client.store.profile_copy import copy_path
from edge_client.store.recovery import open_or_recover
from edge_client.telemetry_store import TelemetryStore
from models.telemetry import DeviceId
from privacy import PublicData, next_entry
from tests.integration.test_store_disk_faults import fill_up, mounted
from tests.support.edge_devices import NOW, PROFILE, new_store
from tests.support.training_tasks import (
    KEYS,
    TERMS,
    agreeing_store,
    receipt_of,
    release_of,
    task_of,
)

KEY = bytes(32)


@pytest.fixture(params=[None, lambda: KEY], ids=["plain", "sealed"])
def key(request):
    return request.param


@pytest.fixture
def path(tmp_path):
    """The store of a device that has taken part twice."""
    with agreeing_store(tmp_path) as store:
        for index in (0, 2):
            take_part(store, index)
    return store.path


def take_part(store, index):
    admission = admit(store, task_of(index=index), terms=TERMS, now=NOW)
    return debit(store, admission, terms=TERMS, now=NOW)


def refusal_of(path, *, index=4):
    files = [file for file in (ledger_path(path), head_path(path)) if file.is_file()]
    before = [file.read_bytes() for file in files]
    with (
        TelemetryStore(path) as store,
        pytest.raises((LedgerError, ParticipationRefusedError)) as caught,
    ):
        take_part(store, index)
    assert [file.read_bytes() for file in files] == before
    return caught.value.refusal


def test_first_consent_to_training_gives_an_older_store_its_ledger(tmp_path, key):
    with new_store(tmp_path, key=key) as store:
        store.set_consent(Purpose.SUMMARIES, granted=True, now=NOW)
        assert not is_enrolled(store.path, store)
        store.set_consent(Purpose.TRAINING, granted=True, now=NOW)
        assert is_enrolled(store.path, store)
        assert take_part(store, 0).entries
        store.set_consent(Purpose.TRAINING, granted=False, now=NOW)
        store.set_consent(Purpose.TRAINING, granted=True, now=NOW)
        assert len(read_device_ledger(store.path, store).entries) == 2


def test_first_task_gives_a_ledger_to_a_store_that_agreed_before_there_were_any(tmp_path):
    with new_store(tmp_path) as store:
        assert not enrol_is_known(store)
        assert take_part(store, 0).entries
        assert enrol_is_known(store)


def enrol_is_known(store):
    return store.fact(LEDGER_FACT) is not None and head_path(store.path).exists()


def test_ledger_from_before_there_were_heads_goes_on(path):
    head_path(path).unlink()
    with TelemetryStore(path) as store:
        store.keep_fact(LEDGER_FACT, None)
        enrol(store, now=NOW)
        assert enrol_is_known(store)
    assert refusal_of(path, index=3) == "too_soon"


def second_store(path, name="other.db"):
    store = TelemetryStore.create(path.with_name(name), profile=PROFILE)
    store.set_consent(Purpose.TRAINING, granted=True, now=NOW)
    return store


def refusal_in(store):
    with pytest.raises((LedgerError, ParticipationRefusedError)) as caught:
        take_part(store, 4)
    assert not ledger_path(store.path).exists()
    return caught.value.refusal


def test_device_does_not_begin_a_second_ledger_under_another_stores_name(path):
    with second_store(path) as store:
        assert refusal_in(store) == "ledger_elsewhere"
        account = account_of(store.path, store)
    assert (account.state, account.is_sound) == ("ledger_elsewhere", False)
    assert str(head_path(path)) in account.problem
    assert refusal_of(path, index=3) == "too_soon"


def test_erased_device_does_not_begin_anew_under_another_stores_name(path):
    erase_device(path, now=NOW)
    with second_store(path) as store:
        assert refusal_in(store) == "erased"
        assert account_of(store.path, store).is_erased


def test_another_device_in_the_same_folder_begins_its_own_ledger(path):
    erase_device(path, now=NOW)
    profile = replace(PROFILE, device_id=DeviceId("device-2"))
    with TelemetryStore.create(path.with_name("two.db"), profile=profile) as store:
        store.set_consent(Purpose.TRAINING, granted=True, now=NOW)
        assert take_part(store, 0).entries


def test_files_are_the_owners_alone_and_hold_no_identifier(path):
    for file in (ledger_path(path), head_path(path)):
        assert stat.S_IMODE(file.stat().st_mode) == 0o600
        assert "device-1" not in file.read_text()


def lines(path):
    return ledger_path(path).read_text().splitlines(keepends=True)


DAMAGES = {
    "missing": (lambda path: ledger_path(path).unlink(), "ledger_missing"),
    "empty": (lambda path: ledger_path(path).write_text(""), "ledger_behind"),
    "torn last line": (
        lambda path: ledger_path(path).write_text("".join(lines(path))[:-9]),
        "ledger_broken",
    ),
    "no line end": (
        lambda path: ledger_path(path).write_text("".join(lines(path))[:-1]),
        "ledger_broken",
    ),
    "cut by a participation": (
        lambda path: ledger_path(path).write_text("".join(lines(path)[:-2])),
        "ledger_behind",
    ),
    "altered": (
        lambda path: ledger_path(path).write_text("".join(lines(path)).replace('"s"', '"t"')),
        "ledger_broken",
    ),
    "first line gone": (
        lambda path: ledger_path(path).write_text("".join(lines(path)[1:])),
        "ledger_broken",
    ),
    "not text": (lambda path: ledger_path(path).write_bytes(b"\xff\xfe"), "ledger_broken"),
    "a folder": (
        lambda path: (ledger_path(path).unlink(), ledger_path(path).mkdir()),
        "ledger_broken",
    ),
    "head not readable": (lambda path: head_path(path).write_text("{"), "ledger_broken"),
    "head says nothing": (lambda path: head_path(path).write_text("{}"), "ledger_broken"),
    "head of another device": (
        lambda path: head_path(path).write_text(
            head_path(path).read_text().replace('"device_hash": "', '"device_hash": "0')
        ),
        "ledger_foreign",
    ),
    "what no device does": (
        lambda path: ledger_path(path).write_text(
            next_entry(None, PublicData(sources=("x",)), kind="public", at=NOW).to_line() + "\n"
        ),
        "ledger_broken",
    ),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_nothing_is_trained_on_a_ledger_that_cannot_be_relied_on(path, damage):
    spoil, refusal = DAMAGES[damage]
    spoil(path)
    assert refusal_of(path) == refusal
    with TelemetryStore(path) as store:
        store.set_consent(Purpose.TRAINING, granted=True, now=NOW)
    assert refusal_of(path) == refusal


def test_ledger_put_back_from_a_copy_is_found_by_either_place_that_knows_better(tmp_path):
    with agreeing_store(tmp_path) as store:
        take_part(store, 0)
        path = store.path
        old = {file: file.read_bytes() for file in (ledger_path(path), head_path(path))}
        take_part(store, 2)
    new_head = head_path(path).read_bytes()
    ledger_path(path).write_bytes(old[ledger_path(path)])
    assert refusal_of(path) == "ledger_behind"
    head_path(path).write_bytes(old[head_path(path)])
    assert refusal_of(path) == "ledger_behind"
    with TelemetryStore(path) as store:
        store.keep_fact(LEDGER_FACT, None)
    head_path(path).write_bytes(new_head)
    assert refusal_of(path) == "ledger_behind"


def test_ledger_of_another_device_is_not_taken_for_ones_own(path, tmp_path):
    (tmp_path / "other").mkdir()
    with agreeing_store(tmp_path / "other") as other:
        for index in (1, 3, 5):
            take_part(other, index)
    shutil.copy(ledger_path(other.path), ledger_path(path))
    assert refusal_of(path, index=9) == "ledger_foreign"


def test_store_that_is_begun_anew_keeps_its_ledger(path):
    path.write_bytes(b"\xa5" * 8192)
    store, _ = open_or_recover(path, NOW, None)
    with store:
        assert len(read_device_ledger(path, store).entries) == 4
        take_part(store, 4)
        assert enrol_is_known(store)
    ledger_path(path).unlink()
    assert refusal_of(path) == "ledger_missing"


def test_erasing_leaves_ledger_head_and_tombstone_and_refuses_for_ever(path):
    with TelemetryStore(path) as store:
        ledger = read_device_ledger(path, store)
        receipt = receipt_of(release_of(index=2))
        checked = check_receipt(receipt, ledger=ledger, keys=KEYS)
        assert keep_receipt(path, checked, receipt, now=NOW)
    assert receipts_path(path).exists()
    before = ledger_path(path).read_bytes()
    erase_device(path, now=NOW)
    left = {file.name for file in path.parent.iterdir()}
    assert left == {"device.db.ledger", "device.db.ledger.head", "device.db.erased.json"}
    assert ledger_path(path).read_bytes() == before
    assert tombstones(path)[0].ledger_head == ledger.head
    with agreeing_store(path.parent):
        pass
    assert refusal_of(path) == "erased"
    tombstone_path(path).write_text("spoilt")
    assert refusal_of(path) == "erased"


def test_full_disk_charges_nothing_and_trains_nothing_and_heals_with_space(tmp_path, key):
    with mounted(tmp_path / "disk", "-o", "size=2m") as disk:
        with agreeing_store(disk, key=key) as store:
            take_part(store, 0)
            before = ledger_path(store.path).read_bytes()
            admission = admit(store, task_of(index=2), terms=TERMS, now=NOW)
            fill_up(disk)
            with pytest.raises(LedgerUnwritableError, match="No space left"):
                debit(store, admission, terms=TERMS, now=NOW)
            assert ledger_path(store.path).read_bytes() == before
            (disk / "ballast").unlink()
            assert len(debit(store, admission, terms=TERMS, now=NOW).entries) == 4
        assert not list(disk.glob(".*.part"))


def test_full_disk_after_the_ledger_was_written_costs_a_participation_and_repeats_none(
    tmp_path, monkeypatch
):
    with agreeing_store(tmp_path) as store:
        admission = admit(store, task_of(index=0), terms=TERMS, now=NOW)
        replace_file = os.replace
        moved = []

        def refusing(source, target, **how):
            moved.append(str(target))
            if str(target).endswith(".ledger.head"):
                raise OSError(28, "No space left on device")
            return replace_file(source, target, **how)

        monkeypatch.setattr(os, "replace", refusing)
        with pytest.raises(LedgerUnwritableError):
            debit(store, admission, terms=TERMS, now=NOW)
        monkeypatch.undo()
        assert moved[0].endswith(".ledger")
        assert len(read_device_ledger(store.path, store).entries) == 2
    assert refusal_of(store.path, index=0) == "index_used"


@pytest.mark.parametrize(
    ("forged", "state", "differs"),
    [
        ({}, "matches", ()),
        ({"noise_only": True}, "matches", ()),
        ({"noise_multiplier": 1.0}, "differs", ("noise_multiplier",)),
        ({"clipping_norm": 0.4}, "differs", ("clipping_norm",)),
        ({"cohort_size": 50}, "differs", ("cohort_size",)),
        ({"policy_digest": "0" * 64}, "differs", ("policy_digest",)),
        ({"most_participations": 1}, "differs", ("most_participations",)),
        ({"index": 3, "most_participations": 2}, "differs", ("index",)),
    ],
)
def test_receipt_is_held_against_what_was_debited(path, forged, state, differs):
    receipt = receipt_of(release_of(**{"index": 2} | forged), index=2)
    checked = check_receipt(receipt, ledger=read_device_ledger(path), keys=KEYS)
    assert (checked.state, checked.differs) == (state, differs)


def test_receipt_with_another_stamp_or_hash_differs(path):
    ledger = read_device_ledger(path)
    seeded = receipt_of(release_of(index=2), kind="simulated")
    assert check_receipt(seeded, ledger=ledger, keys=KEYS).differs == ("kind",)
    retold = receipt_of(release_of(index=2), forged=[("T13:00", "T14:00")])
    assert check_receipt(retold, ledger=ledger, keys=KEYS).differs == ("hash",)
    nonsense = receipt_of(release_of(index=2), forged=[("correlated_release", "telepathy")])
    assert check_receipt(nonsense, ledger=ledger, keys=KEYS).differs == ("entry",)


def test_receipt_that_nobody_known_has_signed_is_nobodys_word(path):
    with pytest.raises(ParticipationRefusedError):
        check_receipt(receipt_of(release_of(index=2)), ledger=read_device_ledger(path), keys={})


def test_receipt_of_a_step_without_this_device_is_not_kept(path):
    receipt = receipt_of(release_of(index=7))
    checked = check_receipt(receipt, ledger=read_device_ledger(path), keys=KEYS)
    assert checked.state == "not_debited"
    assert not keep_receipt(path, checked, receipt, now=NOW)
    assert not receipts_path(path).exists()


def test_same_receipt_is_kept_once_and_a_talkative_server_a_few_times(path, caplog):
    ledger = read_device_ledger(path)
    for cohort in (100, 100, *range(50, 60)):
        receipt = receipt_of(release_of(index=2, cohort_size=cohort))
        keep_receipt(path, check_receipt(receipt, ledger=ledger, keys=KEYS), receipt, now=NOW)
    kept = [json.loads(line) for line in receipts_path(path).read_text().splitlines()]
    assert [one["state"] for one in kept] == ["matches", *["differs"] * 3]
    assert "differs from what was debited: cohort_size" in caplog.text
    assert kept[0]["at"] <= (NOW + timedelta(hours=1)).isoformat()


def test_entry_is_on_the_disk_under_its_name_before_a_debit_returns(tmp_path, monkeypatch):
    """File synced, renamed, folder synced: for the ledger first, then for its head."""
    done = []
    sync, rename = os.fsync, os.replace

    def synced(handle):
        done.append(("sync", Path(f"/proc/self/fd/{handle}").readlink().name))
        sync(handle)

    def renamed(source, target, **how):
        done.append(("rename", Path(target).name))
        rename(source, target, **how)

    with agreeing_store(tmp_path) as store:
        admission = admit(store, task_of(), terms=TERMS, now=NOW)
        monkeypatch.setattr(os, "fsync", synced)
        monkeypatch.setattr(os, "replace", renamed)
        debit(store, admission, terms=TERMS, now=NOW)
    folder, process = tmp_path.name, os.getpid()
    assert done == [
        ("sync", f".device.db.ledger.{process}.part"),
        ("rename", "device.db.ledger"),
        ("sync", folder),
        ("sync", f".device.db.ledger.head.{process}.part"),
        ("rename", "device.db.ledger.head"),
        ("sync", folder),
    ]


def test_one_prediction_loads_nothing_of_the_accounting_or_of_rounds(path):
    program = (
        "import json, sys; from edge_client.cli import run;"
        f"code = run(['--store', {str(path)!r}, 'predict', '--json']);"
        "heavy = ('privacy', 'edge_client.privacy', 'edge_client.eligibility',"
        " 'edge_client.sensing', 'models.wire.rounds');"
        "names = [n for n in sys.modules if n.startswith(heavy)];"
        "print(json.dumps([code, names]))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], check=True, capture_output=True, text=True
    )
    assert json.loads(done.stdout.splitlines()[-1]) == [0, []]


def test_ledger_says_by_itself_whose_it_is_when_everything_else_is_gone(path):
    """A new device does not inherit it; the same one does."""
    path.unlink()
    copy_path(path).unlink()
    assert retire(path, device_id="device-1", erase=False) is None
    assert ledger_path(path).exists()
    aside = retire(path, device_id="device-2", erase=False)
    left = {file.name for file in aside.iterdir()}
    assert left == {"device.db.ledger", "device.db.ledger.head"}
    assert not ledger_path(path).exists()
