"""A device that answers, counts, enrols or keeps a receipt, killed between any two of its steps.

Run as a program: SCENARIO,..., POINTS (`all`, or a seed that draws a tenth of them), FOLDER. A step
is a call that touches a file or the store, or the return from one. For each point a device is
forked that ends itself by SIGKILL there; another one then does the same again, as a server that
asks twice would have it, and goes on. What each of them said, and what the ledger held, is a line
of JSON. With `race` two devices that share a store answer the same steps.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import sys
from contextlib import suppress
from functools import partial
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING, Any

import numpy as np

from edge_client.errors import EdgeError, ParticipationRefusedError
from edge_client.own_training import OwnDevice
from edge_client.privacy.account import account_of
from edge_client.privacy.ledger_file import read_device_ledger
from edge_client.privacy.participation import debit_count
from edge_client.privacy.receipts import read_receipts
from edge_client.sensing.conditions import ConditionSources
from edge_client.store.mailbox import Purpose
from edge_client.telemetry_store import TelemetryStore
from privacy import CountAnswer, CountChannel, Participation
from tests.support.edge_devices import NOW, new_store
from tests.support.stream_policies import stream_policy
from tests.support.training_tasks import (
    TERMS,
    agreeing_store,
    receipt_of,
    release_of,
    signed,
    task_of,
)

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import FrameType

    from edge_client.store.row_cipher import KeySource

    Say = Callable[[str, int | list[int]], None]

STEPS = frozenset(
    {"open", "write", "flush", "fsync", "replace", "chmod", "close", "flock", "unlink", "execute"}
)
CHANNEL = CountChannel(name="metrics", noise_multiplier=60.0, max_answers=9)
POLICY = stream_policy(participations=9, separation=1)
COUNTING = stream_policy(participations=9, separation=1)


NO_POWER_SUPPLIES = ConditionSources(power_supplies=Path("/nowhere"))


class Countdown:
    """Ends this process by SIGKILL at its n-th step; counts them where n is 0."""

    def __init__(self, at: int) -> None:
        self.taken, self._at = 0, at

    def hear(self, _frame: FrameType, event: str, what: Any) -> None:
        """Count a call of C or its return, where it touches a file or the store."""
        if event not in {"c_call", "c_return"} or getattr(what, "__name__", "") not in STEPS:
            return
        if isinstance(getattr(what, "__self__", None), str | bytes | dict):
            return
        self.taken += 1
        if self.taken == self._at:
            os.kill(os.getpid(), signal.SIGKILL)


def take_part(path: Path, say: Say, *, key: KeySource | None = None) -> None:
    """Answer step 0, and say which update left."""
    device = OwnDevice(path, NOW, (), key, TERMS, sources=NO_POWER_SUPPLIES)

    def train() -> Any:
        return np.frombuffer(os.urandom(16), np.int64)

    for index in _indices(path):
        task = task_of(POLICY, index=index)
        update, _ = device.answer(task, train)
        if update is not None:
            say("update", [index, *update.tolist()])


def take_part_sealed(path: Path, say: Say) -> None:
    """Answer step 0 from a sealed store."""
    take_part(path, say, key=store_key)


def store_key() -> bytes:
    """Return the key of the sealed store."""
    return bytes(range(32))


def count(path: Path, say: Say) -> None:
    """Answer release 0 of a count."""
    policy = signed(_counting())
    for index in _indices(path):
        with TelemetryStore(path) as store, suppress(ParticipationRefusedError):
            debit_count(store, policy=policy, channel="metrics", index=index, terms=TERMS, now=NOW)
            say("answer", index)


def enrol(path: Path, say: Say) -> None:
    """Agree to training for the first time."""
    with TelemetryStore(path) as store:
        store.set_consent(Purpose.TRAINING, granted=True, now=NOW)
    say("consent", 0)


def keep_receipt(path: Path, say: Say) -> None:
    """Keep the server's receipt for a step that was debited."""
    device = OwnDevice(path, NOW, (), None, TERMS)
    device.keep_receipt(receipt_of(release_of(POLICY, index=0)))
    say("receipt", 0)


SCENARIOS = {
    "take_part": take_part,
    "take_part_sealed": take_part_sealed,
    "count": count,
    "enrol": enrol,
    "keep_receipt": keep_receipt,
}


def _key_of(scenario: str) -> KeySource | None:
    return store_key if scenario == "take_part_sealed" else None


def _counting() -> Any:
    from dataclasses import replace

    return replace(COUNTING, channels=(CHANNEL,))


def _indices(path: Path) -> tuple[int, ...]:
    """Return the steps to answer: the first, and in the second life the next one, too."""
    return (0, 1) if path.with_name("second").exists() else (0,)


def template(scenario: str, folder: Path) -> None:
    """Make the device as it is before the scenario."""
    folder.mkdir()
    if scenario == "enrol":
        new_store(folder).close()
        return
    with agreeing_store(folder, key=_key_of(scenario)) as store:
        path = store.path
    if scenario == "keep_receipt":
        take_part(path, lambda _kind, _index: None)


def live(scenario: str, folder: Path, *, at: int) -> tuple[list[list[Any]], int, bool]:
    """Fork a device; return what it said, how many steps it took, and whether it was killed."""
    heard, said = os.pipe()
    device = os.fork()
    if device == 0:
        os.close(heard)
        countdown = Countdown(at)

        def say(kind: str, what: int | list[int]) -> None:
            os.write(said, f"{json.dumps([kind, what])}\n".encode())

        sys.setprofile(countdown.hear)
        try:
            SCENARIOS[scenario](folder / "device.db", say)
        finally:
            sys.setprofile(None)
        os.write(said, f"{json.dumps(['steps', countdown.taken])}\n".encode())
        os._exit(0)
    os.close(said)
    with os.fdopen(heard) as lines:
        facts = [json.loads(line) for line in lines]
    _, status = os.waitpid(device, 0)
    steps = next((number for kind, number in facts if kind == "steps"), 0)
    killed = os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL
    return [fact for fact in facts if fact[0] != "steps"], steps, killed


def held(path: Path, *, key: KeySource | None = None) -> dict[str, Any]:
    """Return what the ledger holds, as the device would rely on it."""
    with TelemetryStore(path, key=key) as store:
        account = account_of(path, store, is_brief=True)
        try:
            events = read_device_ledger(path, store).events
        except EdgeError:
            events = ()
    return {
        "state": account.state,
        "update": [event.index for event in events if isinstance(event, Participation)],
        "answer": [event.index for event in events if isinstance(event, CountAnswer)],
        "receipt": [receipt["state"] for receipt in read_receipts(path)],
    }


def race(folder: Path) -> list[list[Any]]:
    """Let two devices answer the same steps at once; return what each answered, None for zeros."""
    with agreeing_store(folder) as store:
        path = store.path
    racers = []
    for _ in range(2):
        heard, said = os.pipe()
        if os.fork() == 0:
            device = OwnDevice(path, NOW, (), None, TERMS, sources=NO_POWER_SUPPLIES)
            mine = []
            for index in range(9):
                task, random = task_of(POLICY, index=index), os.urandom(16)
                train = partial(np.frombuffer, random, np.int64)
                update, _ = device.answer(task, train)
                mine.append(None if update is None else update.tolist())
            os.write(said, json.dumps(mine).encode())
            os._exit(0)
        os.close(said)
        racers.append(heard)
    answered = []
    for heard in racers:
        with os.fdopen(heard) as lines:
            answered.append(json.load(lines))
        os.wait()
    return answered


def cut(scenario: str, points: str, base: Path) -> None:
    """Kill a device at each point of a scenario."""
    whole = base / "template"
    template(scenario, whole)
    shutil.copytree(whole, base / "counted")
    _, steps, _ = live(scenario, base / "counted", at=0)
    chosen = list(range(1, steps + 1))
    if points != "all":
        chosen = sorted(Random(int(points)).sample(chosen, -(-steps // 10)))
    for at in chosen:
        folder = base / "at"
        shutil.copytree(whole, folder)
        first, _, killed = live(scenario, folder, at=at)
        after_kill = held(folder / "device.db", key=_key_of(scenario))
        (folder / "second").touch()
        second, _, _ = live(scenario, folder, at=0)
        seen = {
            "scenario": scenario,
            "at": at,
            "steps": steps,
            "killed": killed,
            "first": first,
            "second": second,
            "after_kill": after_kill,
            "in_the_end": held(folder / "device.db", key=_key_of(scenario)),
        }
        print(json.dumps(seen), flush=True)
        shutil.rmtree(folder)


def main() -> None:
    """Kill devices at each point of some scenarios."""
    scenarios, points, base = sys.argv[1].split(","), sys.argv[2], Path(sys.argv[3])
    for scenario in scenarios:
        folder = base / scenario
        folder.mkdir()
        if scenario == "race":
            answered = race(folder)
            debited = held(folder / "device.db")["update"]
            said = {"scenario": "race", "answered": answered, "debited": debited}
            print(json.dumps(said), flush=True)
        else:
            cut(scenario, points, folder)


if __name__ == "__main__":
    main()
