"""The answer that a device keeps: sent again bit for bit to the very same task, and to no other."""

import base64
import os
import zlib
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from edge_client.errors import StoreDamagedError, TaskRefusedError
from edge_client.own_training import OwnDevice
from edge_client.privacy.ledger_file import read_device_ledger
from edge_client.privacy.participation import REFUSAL_FACT
from edge_client.sensing.conditions import ConditionSources
from edge_client.store.erasure import erase_device
from edge_client.store.mailbox import KEPT_ANSWER_FACT, Purpose
from edge_client.store.rewrite import rewrite_store
from edge_client.store.size_limit import LEAST_STORE_BYTES
from edge_client.telemetry_store import TelemetryStore
from models.wire.rounds import DeviceReceipt, task_digest
from privacy import Participation
from tests.integration.test_store_disk_faults import fill_up, mounted
from tests.support.edge_devices import NOW, fading_life
from tests.support.training_tasks import (
    POLICY,
    TERMS,
    agreeing_store,
    receipt_of,
    release_of,
    task_of,
)

KEY = bytes(32)
WEIGHTS = np.linspace(-1, 1, 5, dtype=np.float32)
NO_POWER_SUPPLIES = ConditionSources(power_supplies=Path("/nowhere"))


@pytest.fixture(params=[None, lambda: KEY], ids=["plain", "sealed"])
def key(request):
    return request.param


@pytest.fixture
def device(tmp_path, request):
    key = request.getfixturevalue("key") if "key" in request.fixturenames else None
    with agreeing_store(tmp_path, key=key) as store:
        return OwnDevice(store.path, NOW, (), key, TERMS, sources=NO_POWER_SUPPLIES)


def train_anew():
    return np.frombuffer(os.urandom(40), np.int64)


def never():
    pytest.fail("the device trained twice for one step")


def asked(device, task, *, weights=WEIGHTS, train=train_anew):
    return device.answer(task, train, digest=task_digest(task, weights))


def fact(device, name):
    with TelemetryStore(device.store, key=device.key) as store:
        return store.fact(name)


def debited(device):
    with TelemetryStore(device.store, key=device.key) as store:
        events = read_device_ledger(store.path, store).events
    return [event.index for event in events if isinstance(event, Participation)]


def refused(device, task, **how):
    before = debited(device)
    total, (line,) = asked(device, task, train=never, **how)
    assert total is None
    assert DeviceReceipt.from_line(line).participations == len(before) == len(debited(device))
    return fact(device, REFUSAL_FACT)["reason"]


def test_same_task_is_answered_with_the_same_bits_and_debited_once(device, key):
    first, receipts = asked(device, task_of())
    other_life = replace(device, key=key)
    for _ in range(3):
        again, again_receipts = asked(other_life, task_of(), train=never)
        assert (again.dtype, again.tobytes()) == (first.dtype, first.tobytes())
        assert again_receipts == receipts
    assert debited(device) == [0]


def test_pseudonyms_of_a_resumed_run_may_be_others(device):
    first, _ = asked(device, task_of())
    task = task_of(pseudonyms=("a1" * 16,))
    again, (line,) = asked(device, task, train=never)
    assert again.tobytes() == first.tobytes()
    assert DeviceReceipt.from_line(line).pseudonym == "a1" * 16


OTHERWISE = {
    "weights": (task_of(), {"weights": np.nextafter(WEIGHTS, 2, dtype=np.float32)}),
    "learning rate": (
        task_of(recipe=replace(task_of().recipe, learning_rate=0.125)),
        {},
    ),
    "policy": (task_of(replace(POLICY, num_rounds=POLICY.num_rounds + 1)), {}),
    "no policy": (task_of(policy=""), {}),
    "clipping norm": (task_of(clipping_norm=0.2), {}),
    "cohort": (task_of(cohort_size=101), {}),
}


@pytest.mark.parametrize("other", OTHERWISE)
def test_same_step_asked_for_otherwise_gets_zeros_and_the_answer_stays_kept(device, other):
    first, _ = asked(device, task_of())
    task, how = OTHERWISE[other]
    assert refused(device, task, **how) == "asked_otherwise"
    again, _ = asked(device, task_of(), train=never)
    assert again.tobytes() == first.tobytes()


def test_receipt_of_the_server_drops_it(device):
    asked(device, task_of())
    device.keep_receipt(receipt_of(release_of(index=2), index=2))
    assert fact(device, KEPT_ANSWER_FACT) is not None
    device.keep_receipt(receipt_of(release_of()))
    assert fact(device, KEPT_ANSWER_FACT) is None
    assert refused(device, task_of()) == "index_used"


def test_next_step_takes_its_place(device):
    asked(device, task_of())
    second, _ = asked(device, task_of(index=2))
    assert refused(device, task_of()) == "index_used"
    again, _ = asked(device, task_of(index=2), train=never)
    assert again.tobytes() == second.tobytes()
    assert debited(device) == [0, 2]


def test_answer_of_a_store_that_was_put_back_is_not_sent_after_a_later_step(device):
    asked(device, task_of())
    old = fact(device, KEPT_ANSWER_FACT)
    asked(device, task_of(index=2))
    with TelemetryStore(device.store, key=device.key) as store:
        store.keep_fact(KEPT_ANSWER_FACT, old)
    assert refused(device, task_of()) == "index_used"


@pytest.mark.parametrize(
    "damage",
    [
        {"total": "not base64"},
        {"total": "QUJD"},
        {"total": base64.b64encode(zlib.compress(b"1234567")).decode()},
        {"total": 3},
        {"index": True},
        {"entry": "0" * 64},
        {"stream": None},
    ],
)
def test_what_is_no_answer_is_not_sent(device, damage):
    asked(device, task_of())
    with TelemetryStore(device.store, key=device.key) as store:
        store.keep_fact(KEPT_ANSWER_FACT, store.fact(KEPT_ANSWER_FACT) | damage)
    assert refused(device, task_of()) == "index_used"


def test_refused_step_keeps_nothing_and_may_be_taken_once_it_is_allowed(device):
    assert refused(device, task_of(policy="")) == "policy_missing"
    assert fact(device, KEPT_ANSWER_FACT) is None
    total, _ = asked(device, task_of())
    assert total.any()


def test_withdrawn_consent_drops_the_answer(device):
    asked(device, task_of())
    with TelemetryStore(device.store, key=device.key) as store:
        store.set_consent(Purpose.TRAINING, granted=False, now=NOW)
    with pytest.raises(TaskRefusedError, match="does not agree"):
        asked(device, task_of(), train=never)
    assert fact(device, KEPT_ANSWER_FACT) is None
    with TelemetryStore(device.store, key=device.key) as store:
        store.set_consent(Purpose.TRAINING, granted=True, now=NOW)
    assert refused(device, task_of()) == "index_used"


def test_erasing_takes_it_along_and_nothing_is_sent_again(device, key):
    first, _ = asked(device, task_of())
    erase_device(device.store, now=NOW)
    for file in device.store.parent.iterdir():
        assert first.tobytes() not in file.read_bytes()
    with agreeing_store(device.store.parent, key=key):
        pass
    assert refused(device, task_of()) == "erased"


def test_sealed_store_seals_it_and_another_key_carries_it_along(device, key):
    first, _ = asked(device, task_of())
    stored = b"".join(file.read_bytes() for file in device.store.parent.iterdir())
    assert (b'"digest"' in stored) is (key is None)
    rewrite_store(device.store, key=key, new_key=lambda: bytes(range(32)))
    resealed = replace(device, key=lambda: bytes(range(32)))
    again, _ = asked(resealed, task_of(), train=never)
    assert again.tobytes() == first.tobytes()


def test_altered_answer_is_a_damaged_store_and_is_not_sent(device):
    asked(device, task_of())
    with TelemetryStore(device.store, key=device.key) as store, store.transaction() as connection:
        connection.execute(
            "UPDATE fact SET value = (SELECT value FROM fact WHERE name = 'language') "
            "WHERE name = ?",
            (KEPT_ANSWER_FACT,),
        )
    with pytest.raises(StoreDamagedError):
        asked(device, task_of(), train=never)


def test_smallest_store_makes_room_for_it(tmp_path, key):
    with agreeing_store(tmp_path, key=key, max_store_bytes=LEAST_STORE_BYTES) as store:
        store.record_many(fading_life(days=560), now=NOW)
        full = store.num_readings()
    device = OwnDevice(store.path, NOW, (), key, TERMS, sources=NO_POWER_SUPPLIES)
    vector = np.random.default_rng(0).integers(-(2**31), 2**31, 2494)
    for index in (0, 2, 4):
        asked(device, task_of(index=index), train=lambda: vector)
        again, _ = asked(device, task_of(index=index), train=never)
        assert np.array_equal(again, vector)
    with TelemetryStore(device.store, key=key) as store:
        assert store.num_readings() > 0.8 * full
    assert device.store.stat().st_size < LEAST_STORE_BYTES


def test_full_disk_between_debit_and_keeping_sends_nothing_now_or_later(tmp_path, key):
    vector = np.frombuffer(os.urandom(800_000), np.int64)
    with mounted(tmp_path / "disk", "-o", "size=2m") as disk:
        with agreeing_store(disk, key=key) as store:
            device = OwnDevice(store.path, NOW, (), key, TERMS, sources=NO_POWER_SUPPLIES)

        def train_while_the_disk_fills():
            fill_up(disk)
            with (disk / "ballast").open("r+b") as ballast:
                # Room for the ledger, none for an answer of 800 kB.
                ballast.truncate(ballast.seek(0, os.SEEK_END) - 200_000)
            return vector

        total, (line,) = asked(device, task_of(), train=train_while_the_disk_fills)
        assert total is None
        assert DeviceReceipt.from_line(line).participations == 1
        (disk / "ballast").unlink()
        assert debited(device) == [0]
        assert refused(device, task_of()) == "index_used"
        total, _ = asked(device, task_of(index=2))
        assert total.any()
