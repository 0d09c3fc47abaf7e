"""Random lives of a real privacy home: streams, counts, kills, restores and repairs.

`PrivacyHome`, `StreamState` and `CountOffice` do what they do in production, over real files. The
journal is written by this module alone, when something leaves: who was asked for which step or
count, and what was released of it. From it, and from nothing that the home says, an oracle computes
in exact arithmetic what each device has spent. Files are put back one at a time: ledger and counts
rewritten in place together are a snapshot of the whole disk, which no home can tell.
"""

from __future__ import annotations

import random
import shutil
import threading
from collections import Counter
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any
from unittest import mock

import mpmath
import numpy as np

from models.held_out_devices import held_out_devices
from models.wire.counts import QUESTION_RECORD, Bins, CountKind, CountQuestion, CountTask
from privacy import (
    BudgetExceededError,
    OperatingSystemNoise,
)
from privacy.accountant import mu_of_releases
from server.counts.count_queries import CountOffice
from server.engine.flower_messages import Roster
from server.engine.rounds import RoundsError
from server.engine.server_optimizer import OptimizerState
from server.privacy_home import counts_file
from server.privacy_home.home_files import COUNTS_FILE, HEAD_FACT, HOME_FILE
from server.privacy_home.home_repair import charge_everyone, cut_torn_line, take_over
from server.privacy_home.ledger_file import LEDGER_FILE
from server.privacy_home.privacy_errors import PrivacyHomeError
from server.privacy_home.privacy_ledger import PrivacyHome, open_home, read_home
from server.runs.report_layout import accountable
from server.streams.stream_state import StepPhase, StreamState, begin_stream, resume_stream
from server.streams.stream_terms import OperatingSystemKeys, StreamTerms
from tests.support.flower_grid import GridInMemory
from tests.support.home_journal import Asked, Journal, random_policy

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

NOW = datetime(2026, 3, 1, tzinfo=UTC)
NAMES = [f"device-{number}" for number in range(40)]
_OUT = held_out_devices(NAMES)
IN_TRAINING = [name for name, out in zip(NAMES, _OUT, strict=True) if not out][:5]
HELD_OUT = [name for name, out in zip(NAMES, _OUT, strict=True) if out][:2]
DEVICES = [*IN_TRAINING, *HELD_OUT]
START = OptimizerState.start(np.zeros(3, np.float32))
TOTAL = np.array([5, -7, 11], np.int64)
KEYS = OperatingSystemKeys()
QUESTION = CountQuestion(
    kind=CountKind.DRIFT, as_of_s=86_400, bins=(Bins("usage_intensity", (3.0,)),)
)
PHASES = (StepPhase.INVITED, StepPhase.COMMITTED, StepPhase.CHARGED, None)
FILES = (LEDGER_FILE, COUNTS_FILE)


class Killed(BaseException):
    """A process that ends where it is."""


@dataclass(slots=True)
class RandomLife:
    """A privacy home, what runs on it, and the journal of what left.

    Attributes:
        folder: of the home and of its runs.
        chance: decides every move.
        journal: of what left.
        head: hash of the newest entry that anybody outside the home has seen.
        seen: moves and how they ended, counted.
        is_overcharged: whether counts were made anew: the figure is an upper bound from then on.
    """

    folder: Path
    chance: random.Random
    journal: Journal = field(default_factory=Journal)
    head: str = ""
    seen: Counter[str] = field(default_factory=Counter)
    is_overcharged: bool = False
    _streams: dict[str, StreamState | None] = field(default_factory=dict)
    _terms: dict[str, StreamTerms] = field(default_factory=dict)
    _backups: list[dict[str, bytes]] = field(default_factory=list)

    @property
    def path(self) -> Path:
        """Folder of the home."""
        return self.folder / "home"

    def live(self, moves: int) -> None:
        """Make so many moves; after each one, the home tells no less than what left."""
        self._begin()
        for _ in range(moves):
            names, weights = zip(*_MOVES.items(), strict=True)
            (name,) = self.chance.choices(names, weights)
            getattr(self, name)()
            self.require_told()
        for stream in self._streams.values():
            if stream is not None:
                stream.close()

    def require_told(self) -> PrivacyHome:
        """Fail where the home tells less than what left, or has passed a promise."""
        home = open_home(self.path)
        told = mu_of_releases(accountable(home.entries)) ** 2
        spent = max(self.journal.spent(device, released=True) for device in DEVICES)
        assert told >= spent * (1 - mpmath.mpf(10) ** -12), "the ledger tells less than what left"
        self.journal.require_known(home, DEVICES)
        return home

    # What an operator's runs do.

    def _begin(self) -> None:
        name = f"stream-{len(self._terms)}"
        terms = StreamTerms.under(random_policy(name, self.chance))
        (self.folder / name).mkdir(parents=True)
        self._streams[name] = begin_stream(
            self.folder / name,
            open_home(self.path),
            terms,
            start=START,
            keys=KEYS,
            source=OperatingSystemNoise(),
        )
        self._terms[name] = terms
        self._back_up()

    def _step(self) -> None:
        """Take a stream one step on, or die on the way; what is left is taken up later."""
        if not self._streams:
            return self._begin()
        name = self.chance.choice(sorted(self._streams))
        until = self.chance.choice((*PHASES, None, None, None))
        try:
            stream = self._at_work(name)
            self._steps(stream, until)
        except (BudgetExceededError, PrivacyHomeError) as error:
            self._count("step", error)
            if isinstance(error, PrivacyHomeError):
                self._drop(name)
                del self._streams[name]
        except Killed:
            self.seen["killed in a charge"] += 1
            self._drop(name)
        else:
            if until is not None:
                self.seen[f"killed when {until}"] += 1
                self._drop(name)
            self._back_up()

    def _steps(self, stream: StreamState, until: StepPhase | None) -> None:
        if stream.phase is None:
            cohort = stream.invite(device_ids=DEVICES, choose=lambda _: self._cohort(stream))
            self.journal.asked.append(
                Asked(
                    devices=cohort,
                    policy=stream.terms.policy,
                    index=stream.next_index,
                    stream=stream.terms.stream,
                )
            )
        if until is StepPhase.INVITED:
            return
        if stream.phase is StepPhase.INVITED:
            stream.commit(TOTAL, noise_only=False)
        if until is StepPhase.COMMITTED:
            return
        if stream.phase is StepPhase.COMMITTED:
            with self._perhaps_killed():
                stream.charge(NOW)
        if until is StepPhase.CHARGED:
            return
        stream.release()
        self.head = open_home(self.path).entries[-1].hash
        for one in self.journal.asked:
            if (one.stream, one.index) == (stream.terms.stream, stream.next_index):
                one.released = True
        self.seen["released steps"] += 1
        stream.checkpoint(START)

    def _cohort(self, stream: StreamState) -> list[int]:
        if self.chance.random() < 0.3:
            return self.chance.sample(range(len(DEVICES)), stream.terms.cohort_size)
        return self.chance.sample(range(len(IN_TRAINING)), stream.terms.cohort_size)

    def _ask(self) -> None:
        """Ask a channel of any stream's policy, or die between the question and its release."""
        policy = self._terms[self.chance.choice(sorted(self._terms))].policy
        channel = self.chance.choice(policy.channels)
        asked: list[Asked] = []
        dies = self.chance.random() < 0.2

        def node(message: Any) -> list[str]:
            task = CountTask.from_plain(message.content.config_records[QUESTION_RECORD])
            sigma = channel.noise_multiplier
            asked.append(
                Asked(devices=task.device_ids, policy=policy, index=task.index, sigma=sigma)
            )
            self.journal.asked.extend(asked)
            if dies:
                raise Killed
            return ["no answer in time"]

        office = CountOffice(
            home=open_home(self.path),
            policy=policy,
            policy_text="",
            source=OperatingSystemNoise(),
            clock=lambda: NOW,
            stop=threading.Event(),
            deadline_s=0.2,
            poll_s=0.0001,
        )
        try:
            with self._perhaps_killed():
                roster = Roster.of({1: DEVICES})
                found = office.release(
                    GridInMemory({1: node}), roster, channel=channel.name, question=QUESTION
                )
        except (RoundsError, PrivacyHomeError) as error:
            self._count("count", error)
        except Killed:
            self.seen["killed in a count"] += 1
        else:
            asked[0].released, self.head = True, found.entry_hash
            self.seen["released counts"] += 1
            self._back_up()

    def _at_work(self, name: str) -> StreamState:
        stream = self._streams[name]
        if stream is None:
            folder, terms = self.folder / name, self._terms[name]
            stream, _ = resume_stream(folder, open_home(self.path), terms, keys=KEYS)
            self._streams[name] = stream
            self.seen["resumed"] += 1
        return stream

    def _drop(self, name: str) -> None:
        stream = self._streams[name]
        if stream is not None:
            stream.close()
        self._streams[name] = None

    def _drop_all(self) -> None:
        for name in self._streams:
            self._drop(name)

    @contextmanager
    def _perhaps_killed(self) -> Iterator[None]:
        """End now and then between the ledger's entry and the note of it."""
        keep = counts_file.keep_fact

        def dying(connection: Any, name: str, value: str) -> None:
            if name == HEAD_FACT:
                raise Killed
            keep(connection, name, value)

        if self.chance.random() < 0.1:
            with mock.patch.object(counts_file, "keep_fact", dying):
                yield
        else:
            yield

    # What happens to files, and what an operator does about it.

    def _back_up(self) -> None:
        if self.chance.random() < 0.5:
            self._backups.append({name: self._content(name) for name in FILES})

    def _content(self, name: str) -> bytes:
        path = self.path / name
        return path.read_bytes() if path.exists() else b""

    def _put_back(self) -> None:
        """Put one file of the home back from a backup, in place or in a new file."""
        if not self._backups:
            return
        name, old = self.chance.choice(FILES), self._backup()
        how = self.chance.choice((_in_place, _anew))
        self._harm(f"{name} {how.__name__}", lambda: how(self.path / name, old[name]))

    def _put_the_home_back(self) -> None:
        """Put the whole home back as a copy of what it was once."""
        if not self._backups:
            return
        old = self._backup()

        def put_back() -> None:
            for name, content in ({HOME_FILE: self._content(HOME_FILE)} | old).items():
                _anew(self.path / name, content)

        self._harm("home put back", put_back)

    def _backup(self) -> dict[str, bytes]:
        """A backup: of late, as often as not."""
        return self.chance.choice(
            self._backups[-2:] if self.chance.random() < 0.5 else self._backups
        )

    def _lose(self) -> None:
        names = self.chance.choice(((COUNTS_FILE,), FILES, (LEDGER_FILE,)))
        paths = [self.path / name for name in names]
        self._harm("lost " + " ".join(names), lambda: [p.unlink(missing_ok=True) for p in paths])

    def _move(self) -> None:
        """Copy the home as a whole: another folder under its name."""

        def move() -> None:
            shutil.copytree(self.path, self.folder / "copy")
            shutil.rmtree(self.path)
            (self.folder / "copy").rename(self.path)

        self._harm("moved", move)

    def _put_a_run_back(self) -> None:
        """Put the folder of a run back as a copy: its stream must not go on."""
        if not self._streams:
            return
        name = self.chance.choice(sorted(self._streams))
        self._drop(name)
        run = self.folder / name
        shutil.copytree(run, self.folder / "copy")
        shutil.rmtree(run)
        (self.folder / "copy").rename(run)
        self.seen["run put back"] += 1

    def _tear(self) -> None:
        """Leave half a line in the ledger: of a new entry, or of the last one, which was whole."""
        path = self.path / LEDGER_FILE
        if not path.exists() or not path.stat().st_size:
            return
        whole, counts = path.read_bytes(), self.path / COUNTS_FILE

        def cut_and_lose() -> None:
            _in_place(path, whole[:-30])
            counts.unlink()

        what, harm = self.chance.choice(
            (
                ("torn", lambda: _in_place(path, whole + b'{"at":"20')),
                ("cut", lambda: _in_place(path, whole[:-30])),
                ("cut, counts lost", cut_and_lose),
            )
        )
        self._harm(what, harm)

    def _harm(self, what: str, harm: Callable[[], object]) -> None:
        """Do something to the files; where the home refuses, the operator mends it in some way."""
        open_home(self.path)
        self._drop_all()
        newest = {name: self._content(name) for name in FILES}
        inode = (self.path / COUNTS_FILE).stat().st_ino, (self.path / HOME_FILE).stat().st_ino
        harm()
        try:
            open_home(self.path)
        except PrivacyHomeError as error:
            self._count(what, error)
        else:
            self.seen[f"{what}: goes on"] += 1
            return
        for repair in self.chance.sample(_REPAIRS, len(_REPAIRS)):
            try:
                repair(self)
                open_home(self.path)
            except PrivacyHomeError as error:
                self._count(repair.__name__, error)
            else:
                self.seen[f"{repair.__name__}: done"] += 1
                return
        for name in FILES:
            _in_place(self.path / name, newest[name])
        self.seen["newest copy put back"] += 1
        here = (self.path / COUNTS_FILE).stat().st_ino, (self.path / HOME_FILE).stat().st_ino
        if here == inode:
            return
        # The newest copy in other files: only with its newest entry is it believed.
        entries = read_home(self.path)
        if entries:
            take_over(self.path, head=entries[-1].hash)
        else:
            self.seen["begun anew, for nothing was released"] += 1
            shutil.rmtree(self.path)

    def _rebuild(self) -> None:
        charge_everyone(self.path, head=self.head)
        self.is_overcharged = True

    def _accept_moved(self) -> None:
        take_over(self.path, head=self.head)

    def _repair(self) -> None:
        cut_torn_line(self.path, now=NOW, head=self.head)

    def _count(self, what: str, error: Exception) -> None:
        self.seen[f"{what}: {type(error).__name__}"] += 1


_MOVES = {
    "_step": 12,
    "_ask": 3,
    "_begin": 1,
    "_put_back": 3,
    "_put_the_home_back": 1,
    "_lose": 1,
    "_move": 1,
    "_put_a_run_back": 1,
    "_tear": 1,
}
_REPAIRS = (RandomLife._rebuild, RandomLife._accept_moved, RandomLife._repair)


def random_life(seed: int, folder: Path, *, moves: int) -> RandomLife:
    """Let a home live through random moves.

    Args:
        seed: of the moves; the noise is the operating system's.
        folder: empty.
        moves: how many.
    """
    life = RandomLife(folder, random.Random(seed))
    life.live(moves)
    return life


def _in_place(path: Path, content: bytes) -> None:
    """Write content into a file as `cp` over it does: it stays the same file."""
    if not path.exists():
        path.touch(mode=0o600)
    with path.open("r+b") as file:
        file.write(content)
        file.truncate()


def _anew(path: Path, content: bytes) -> None:
    """Put a new file in the place of one, as backups are put back."""
    aside = path.with_name("aside")
    aside.write_bytes(content)
    aside.replace(path)
