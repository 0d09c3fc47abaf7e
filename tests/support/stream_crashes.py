"""A stream whose process is killed again and again, watched by a journal of what really left.

Run as a program: `python -m tests.support.stream_crashes FOLDER ROUNDS SEED [QUANTILE]`; with a
quantile the clipping norm adapts. For each named step
of each round, and at random events of writing between them, it forks a process that takes the
stream up, runs it to that point and ends itself by SIGKILL. After each death it holds ledger and
counts against the journal, which the dying process wrote whenever something left, and nothing else.
It prints one JSON object at the end.
"""

from __future__ import annotations

import hashlib
import json
import os
import signal
import sqlite3
import sys
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from random import Random
from typing import Any

import numpy as np

from privacy import (
    OperatingSystemNoise,
    RecordPolicy,
    StreamPolicy,
    UpdateGrid,
    policy_for,
    release_epsilon,
)
from privacy.accountant import gaussian_epsilon
from privacy.streams import CorrelatedNoise
from server.engine.aggregation import mean_update
from server.engine.server_optimizer import OptimizerState, ServerRecipe, optimizer_step
from server.privacy_home import counts_file
from server.privacy_home.privacy_errors import StreamRefusedError
from server.privacy_home.privacy_ledger import COUNTS_FILE, PrivacyHome, open_home, read_home
from server.streams.stream_files import read_checkpoint
from server.streams.stream_key import KEY_FILE, read_secrets
from server.streams.stream_norm import StepNorm
from server.streams.stream_state import StepPhase, StreamState, begin_stream, resume_stream
from server.streams.stream_terms import OperatingSystemKeys, StreamTerms

NOW = datetime(2026, 3, 1, tzinfo=UTC)
NUM_WEIGHTS = 40
COHORT, POPULATION = 3, 12
SEPARATION = POPULATION // COHORT
DELTA = 1e-6
RECIPE = ServerRecipe(optimizer="fedadam", learning_rate=0.1)
DEVICES = tuple(f"device-{number}" for number in range(POPULATION))
BEFORE_THE_SUM = ("counted", "tasks_left")
AFTER_THE_SUM = ("committed", "charged", "noised", "kept")
EVENTS_OF_A_ROUND = 90
_WRITE = os.write
WATCHED = frozenset({"open", "os.remove", "os.rename", "os.mkdir", "fcntl.flock"})


def terms_of(name: str, num_rounds: int, quantile: float | None = None) -> StreamTerms:
    """The constants of a stream whose devices take part as often as its budget lasts."""
    privacy = policy_for(
        epsilon=2.0,
        delta=DELTA,
        max_participations=-(-num_rounds // SEPARATION),
        clipping_norm=1.0,
        min_separation=SEPARATION,
        min_cohort_size=COHORT,
        bands=SEPARATION,
        target_quantile=quantile,
    )
    policy = StreamPolicy(
        stream=name,
        num_rounds=num_rounds,
        cohort_size=COHORT,
        privacy=privacy,
        record=RecordPolicy(
            noise_multiplier=1.0, max_grad_norm=1.0, sampling_rate=0.1, steps=1, least_rows=180
        ),
    )
    return StreamTerms.under(policy)


def total_of(index: int, size: int = NUM_WEIGHTS) -> np.ndarray:
    """What the devices of a step send together, on the grid; an entry more is the sum of bits."""
    values = np.random.default_rng(index).normal(size=NUM_WEIGHTS)
    clipped = values / np.linalg.norm(values) * 0.9
    bits = np.full(size - NUM_WEIGHTS, index % COHORT - 1.0)
    return UpdateGrid(clipping_norm=1.0).quantise(np.concatenate([clipped, bits]))


def start() -> OptimizerState:
    """The weights before the first step."""
    return OptimizerState.start(np.linspace(-1, 1, NUM_WEIGHTS, dtype=np.float32))


@dataclass(slots=True)
class Journal:
    """What left, or was computed from a sum and its noise: written by the dying, read by us.

    Attributes:
        path: of the file; lines are appended whole.
    """

    path: Path

    def say(self, **facts: object) -> None:
        """Append a line at once."""
        handle = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        _WRITE(handle, (json.dumps(facts) + "\n").encode())
        os.close(handle)

    def lines(self) -> list[dict[str, Any]]:
        """Read every line."""
        if not self.path.exists():
            return []
        return [json.loads(line) for line in self.path.read_text().splitlines()]


class Death:
    """Ends this process by SIGKILL at a named step of a round, or at its n-th event of writing."""

    def __init__(self, index: int, name: str, events: int, journal: Journal) -> None:
        self.index, self._name, self._left = index, name, events
        self._journal, self._self = journal, os.getpid()
        if events:
            self._watch()

    def step(self, index: int, name: str) -> None:
        """Come to a named step."""
        if (index, name) == (self.index, self._name):
            self._journal.say(died=name)
            os.kill(self._self, signal.SIGKILL)

    def disarm(self) -> None:
        """Let this process live, whatever it does from here on."""
        self._left = 0

    def _watch(self) -> None:
        sync, write, connect = os.fsync, os.write, sqlite3.connect

        def counted_sync(handle: int) -> None:
            self._count()
            sync(handle)
            self._count()

        def counted_write(handle: int, content: bytes) -> int:
            self._count()
            return write(handle, content)

        def traced(*arguments: Any, **options: Any) -> sqlite3.Connection:
            connection = connect(*arguments, **options)
            connection.set_trace_callback(lambda _statement: self._count())
            return connection

        os.fsync, os.write = counted_sync, counted_write
        counts_file.sqlite3.connect = traced
        sys.addaudithook(lambda event, _: self._count() if event in WATCHED else None)

    def _count(self) -> None:
        self._left -= 1
        if self._left == 0:
            os.kill(self._self, signal.SIGKILL)


def digest(values: np.ndarray) -> str:
    """Name an array by its bytes."""
    return hashlib.sha256(values.tobytes()).hexdigest()[:16]


def live(stream: StreamState, state: OptimizerState, journal: Journal, death: Death) -> None:
    """Run a stream to its end, to the end of the round of the death, or to the death."""
    while stream.next_index < min(stream.terms.num_rounds, death.index + 1):
        index = stream.next_index
        if stream.phase is None:
            cohort = stream.invite(
                device_ids=DEVICES,
                choose=lambda _, index=index: [
                    (index * COHORT + number) % POPULATION for number in range(COHORT)
                ],
            )
            death.step(index, "counted")
            journal.say(tasks=index, cohort=cohort, weights=digest(state.weights))
            death.step(index, "tasks_left")
            stream.commit(total_of(index, stream.size))
        elif stream.phase is StepPhase.INVITED:
            stream.commit(total_of(index, stream.size), noise_only=True)
        death.step(index, "committed")
        if stream.phase is StepPhase.COMMITTED:
            stream.charge(NOW)
        death.step(index, "charged")
        update = stream.release()
        journal.say(released=index, update=digest(update), noise_only=stream.was_noise_only)
        death.step(index, "noised")
        rate = RECIPE.rate_at(index, num_rounds=stream.terms.num_rounds)
        state = optimizer_step(state, update, recipe=RECIPE, rate=rate)
        stream.checkpoint(state)
        death.step(index, "kept")


def home_of(folder: Path, terms: StreamTerms) -> Path:
    """The privacy home: one for all runs where its folder was made, else the run's own."""
    shared = folder / "home"
    return shared if shared.exists() else folder / terms.stream


def be_born_and_die(folder: Path, terms: StreamTerms, death: Death, journal: Journal) -> None:
    """Take up the stream, or open it, and live."""
    run = folder / terms.stream
    run.mkdir(exist_ok=True)
    home = open_home(home_of(folder, terms))
    if any(line.get("begun") == terms.stream for line in journal.lines()):
        stream, state = resume_stream(run, home, terms, keys=OperatingSystemKeys())
    else:
        state = start()
        stream = begin_stream(
            run, home, terms, start=state, keys=OperatingSystemKeys(), source=OperatingSystemNoise()
        )
        journal.say(begun=terms.stream)
    live(stream, state, journal, death)


@dataclass(slots=True)
class Watch:
    """Holds ledger and counts against the journal after each death.

    Attributes:
        folder: of home and stream.
        terms: of the stream.
        journal: of what left.
    """

    folder: Path
    terms: StreamTerms
    journal: Journal
    _cohorts: dict[int, set[str]] = field(default_factory=dict)

    def check(self) -> None:
        """Fail unless everything that left is counted, charged, and of one noise and one sum."""
        lines = self.journal.lines()
        tasks = [line for line in lines if "tasks" in line]
        releases = [line for line in lines if "released" in line]
        offered = Counter(line["tasks"] for line in tasks)
        assert set(offered.values()) <= {1}, f"an index was offered twice: {offered}"
        by_index = defaultdict(set)
        for line in releases:
            by_index[line["released"]].add((line["update"], line["noise_only"]))
        assert all(len(made) == 1 for made in by_index.values()), "noise met another sum"
        self._check_counts(tasks)
        self._check_ledger(tasks, releases)

    def _check_counts(self, tasks: list[dict[str, Any]]) -> None:
        if not tasks:
            return
        asked = Counter(device for line in tasks for device in line["cohort"])
        with sqlite3.connect(home_of(self.folder, self.terms) / COUNTS_FILE) as counts:
            counted = dict(counts.execute("SELECT device, participations FROM devices"))
        assert all(counted[device] >= number for device, number in asked.items())
        assert max(counted.values()) <= self.terms.privacy.max_participations

    def _check_ledger(self, tasks: list[dict[str, Any]], releases: list[dict[str, Any]]) -> None:
        if not releases:
            return
        entries = read_home(home_of(self.folder, self.terms))
        assert [entry.event.index for entry in entries] == list(range(len(entries)))
        left = {line["released"] for line in releases}
        assert left <= set(range(len(entries)))
        # Who was asked for a step that was released, whether the sum held it or not.
        taken = Counter(d for line in tasks if line["tasks"] in left for d in line["cohort"])
        spent = max(taken.values(), default=0) * self.terms.privacy.step_mu_squared
        exact = gaussian_epsilon(mu=spent**0.5, delta=DELTA)
        said = release_epsilon((entry.event for entry in entries), delta=DELTA)
        assert exact <= said * (1 + 1e-9)
        assert said <= self.terms.privacy.epsilon * (1 + 1e-9)


def die_once(
    folder: Path, terms: StreamTerms, journal: Journal, death: tuple[int, str, int]
) -> bool:
    """Fork a process, let it die, and tell whether it did; False if it came to the stream's end."""
    child = os.fork()
    if child == 0:
        code = 1
        try:
            be_born_and_die(folder, terms, Death(*death, journal), journal)
            code = 0
        finally:
            os._exit(code)
    _, status = os.waitpid(child, 0)
    if os.WIFSIGNALED(status):
        assert os.WTERMSIG(status) == signal.SIGKILL
        return True
    assert os.WEXITSTATUS(status) == 0, "the stream could not go on"
    return False


def run(folder: Path, num_rounds: int, seed: int, quantile: float | None = None) -> dict[str, Any]:
    """Kill at every named step of every round and at random between; return what came of it."""
    random = Random(seed)
    if seed % 2 == 0:
        (folder / "home").mkdir()
    journal = Journal(folder / "journal")
    terms, kills = begin_under_fire(folder, num_rounds, journal, random, quantile)
    watch = Watch(folder, terms, journal)
    for index in range(num_rounds):
        # A round that dies before its sum is committed is noise alone; every other one is not.
        early = BEFORE_THE_SUM[index // 2 % 2 : index // 2 % 2 + 1] if index % 2 else ()
        steps = (*early, *AFTER_THE_SUM)
        at_random = random.randrange(len(steps))
        for number, name in enumerate(steps):
            if number == at_random:
                events = random.randrange(1, EVENTS_OF_A_ROUND)
                kills += die_once(folder, terms, journal, (index, name, events))
                watch.check()
                if journal.lines()[-1] == {"died": name}:
                    continue
            kills += die_once(folder, terms, journal, (index, name, 0))
            watch.check()
    assert not die_once(folder, terms, journal, (num_rounds, "", 0))
    watch.check()
    refused = False
    try:
        stream, _ = resume_stream(
            folder / terms.stream,
            PrivacyHome(home_of(folder, terms)),
            terms,
            keys=OperatingSystemKeys(),
        )
        stream.invite(device_ids=DEVICES, choose=lambda _: [0, 1, 2])
    except StreamRefusedError:
        refused = True
    noise_only = sum(entry.event.noise_only for entry in read_home(home_of(folder, terms)))
    is_bit_identical, norms = replayed(folder, terms)
    return {
        "kills": kills,
        "rounds": num_rounds,
        "noise_only": noise_only,
        "refused_past_the_end": refused,
        "is_bit_identical": is_bit_identical,
        "norms": norms,
    }


def begin_under_fire(
    folder: Path, num_rounds: int, journal: Journal, random: Random, quantile: float | None
) -> tuple[StreamTerms, int]:
    """Open streams until one has begun, each opening killed somewhere."""
    kills = 0
    for attempt in range(10):
        terms = terms_of(f"stream-{attempt}", num_rounds, quantile)
        events = random.randrange(1, 60) if attempt < 8 else 0
        kills += die_once(folder, terms, journal, (-1, "", events))
        if any(line.get("begun") == terms.stream for line in journal.lines()):
            return terms, kills
    raise AssertionError("no stream began")


def replayed(folder: Path, terms: StreamTerms) -> tuple[bool, list[float | None]]:
    """Compare the stream's end with one that nobody ever interrupted, under the same key.

    Returns whether they are the same bit for bit, and the norm after each step.

    Noise is a function of key, step and committed sum: no step may have met other noise for having
    been interrupted, in whatever process it was released.
    """
    secrets = read_secrets(folder / terms.stream / KEY_FILE, operator=None)
    noise, state = CorrelatedNoise(secrets.noise_key, terms.policy), start()
    norm, size = StepNorm.of(terms), terms.size(NUM_WEIGHTS)
    norms: list[float | None] = []
    _, steps = PrivacyHome(home_of(folder, terms)).stream(terms.stream)
    for entry in read_home(home_of(folder, terms)):
        index = entry.event.index
        is_noise = entry.event.noise_only
        total = np.zeros(size, np.int64) if is_noise else total_of(index, size)
        noise.bind(index, bytes.fromhex(steps[index].aggregate_digest))
        mean = mean_update(
            total,
            noise=noise.noise(index, size),
            num_invited=COHORT,
            grid=UpdateGrid(clipping_norm=1.0),
        )
        update = norm.of_update(mean, noise_only=is_noise)
        norm.move()
        norms.append(norm.to_keep)
        rate = RECIPE.rate_at(index, num_rounds=terms.num_rounds)
        state = optimizer_step(state, update, recipe=RECIPE, rate=rate)
    ended = read_checkpoint(folder / terms.stream)
    is_same = ended.clipping_norm == norm.to_keep and all(
        np.array_equal(state.to_arrays()[name], ended.state.to_arrays()[name])
        for name in state.to_arrays()
    )
    return is_same, norms


if __name__ == "__main__":
    asked = float(sys.argv[4]) if len(sys.argv) > 4 else None
    print(json.dumps(run(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]), asked)))
