"""SuperLink, SuperExec and proxy of a deployment, kept alive until the process is asked to stop.

The SuperLink comes first: the others are started once it answers. What dies is started again after
a pause that grows; a run goes on, for its process is none of the SuperLink's (`--isolation
process`) and the SuperLink's state is on disk. A part that was never ready ends the whole: what it
is told is wrong, and starting it again would not help.
"""

from __future__ import annotations

import fcntl
import hashlib
import shutil
import time
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from .errors import DeploymentError, ServingError
from .flower_commands import PROXY, SUPEREXEC, SUPERLINK
from .part_process import PartProcess, shorten_log
from .readiness import proxy_answers, superlink_answers, taken_port
from .supervision import PartRecord

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from pathlib import Path

    from .flower_commands import Part
    from .place import Deployment

    Tell = Callable[[Mapping[str, Any]], None]

TICK_S = 0.2
LOOK_S = 10.0
"""Between two looks at a part that is ready."""
HOUSEKEEPING_S = 30.0
SETTLED_S = 2.0
"""After which a part that listens nowhere is taken for ready."""
END_S = 15.0
"""For a part and what it started to end by itself."""
APPS = "apps"
"""Where Flower installs apps in its home."""
PORTS_S = 5.0
"""For processes of a supervisor that was killed to let go of their ports."""
_FIRST = {SUPEREXEC: SUPERLINK, PROXY: SUPERLINK}
"""What must be ready before a part is started for the first time."""


@dataclass(slots=True)
class Job:
    """What is done again and again beside the processes.

    Attributes:
        every_s: seconds between two turns.
        work: does it; returns what there is to tell, None for nothing.
    """

    every_s: float
    work: Callable[[], Mapping[str, Any] | None]
    _due_at: float = field(default=0.0, init=False)
    _last: Mapping[str, Any] | None = field(default=None, init=False)

    def news(self, now: float) -> Mapping[str, Any] | None:
        """Do it if it is due, and return what there is to tell and was not told the last time."""
        if now < self._due_at:
            return None
        self._due_at = now + self.every_s
        before, self._last = self._last, self.work()
        return None if self._last == before else self._last


@dataclass(slots=True)
class Supervisor:
    """Keeps the parts of a deployment alive.

    Attributes:
        deployment: whose parts they are.
        parts: in the order in which they are started.
        environment: of the processes.
        tell: is told each event, an object with `event` and, mostly, `part`.
        jobs: what is done beside, once everything is ready.
        is_stopped: asked between two looks; true ends everything.
    """

    deployment: Deployment
    parts: Sequence[Part]
    environment: Mapping[str, str]
    tell: Tell
    is_stopped: Callable[[], bool]
    jobs: Sequence[Job] = ()
    _processes: dict[str, PartProcess] = field(default_factory=dict, init=False)
    _records: dict[str, PartRecord] = field(default_factory=dict, init=False)
    _looked_at: dict[str, float] = field(default_factory=dict, init=False)
    _read: dict[str, str] = field(default_factory=dict, init=False)
    _kept_at: float = field(default=0.0, init=False)
    _is_ready: bool = field(default=False, init=False)

    def run(self) -> None:
        """Serve until asked to stop.

        Raises:
            ServingError: a port is taken, or a part ends before it was ever ready.
            OSError: a program cannot be started.
        """
        self._processes = {part.name: PartProcess(part) for part in self.parts}
        self._records = {part.name: PartRecord() for part in self.parts}
        self._require_ports()
        try:
            while not self.is_stopped():
                for name in self._processes:
                    self._attend(name, time.monotonic())
                self._say_ready()
                self._keep_house(time.monotonic())
                time.sleep(TICK_S)
        finally:
            self._end_all()

    def _require_ports(self) -> None:
        end = time.monotonic() + PORTS_S
        while True:
            try:
                port = taken_port(self.deployment, with_proxy=PROXY in self._processes)
            except OSError as error:
                what = f"cannot listen there: {error.strerror}"
                where = f"{self.deployment.listen or '*'}:{self.deployment.port}"
                raise ServingError(where, what, "choose another --listen or --port") from None
            if port is None or self.is_stopped():
                return
            if time.monotonic() >= end:
                remedy = "end what listens there, or choose another port with fedcell rounds"
                raise ServingError(f"port {port}", "is in use", f"{remedy} deployment")
            time.sleep(TICK_S)

    def _attend(self, name: str, now: float) -> None:
        """Start a part that is due, look at one that lives, count the death of one that ended."""
        process, record = self._processes[name], self._records[name]
        if process.pid is None:
            if self._may_start(name) and now >= record.due_at:
                self._start(name, now)
            return
        if not process.lives():
            self._bury(name, now)
            return
        pause = TICK_S if record.ready_at is None else LOOK_S
        if now - self._looked_at.get(name, 0.0) < pause:
            return
        self._looked_at[name] = now
        if self._answers(name, for_s=now - record.started_at):
            if record.ready_at is None:
                after = round(now - record.started_at, 1)
                self.tell({"event": "part_ready", "part": name, "after_s": after})
            self._records[name] = record.answered(now)
        elif record.hangs(now):
            self.tell({"event": "part_silent", "part": name, "pid": process.pid})
            process.kill()
            process.wait(END_S)
            if not record.was_ready:
                what = f"{name} lives, and does not answer"
                raise ServingError(process.part.log, what, f"it said: {process.last_words()}")

    def _may_start(self, name: str) -> bool:
        first = _FIRST.get(name)
        return first is None or first not in self._records or self._records[first].was_ready

    def _start(self, name: str, now: float) -> None:
        process = self._processes[name]
        if name == SUPEREXEC:
            # Flower takes an app's folder that is there for whole, also where its installation was
            # cut off; it installs anew what is missing.
            shutil.rmtree(self.deployment.flwr_home / APPS, ignore_errors=True)
        self._read[name] = self._digest(name)
        pid = process.start(self.environment, folder=self.deployment.folder)
        self._records[name] = self._records[name].begun(now)
        self.tell({"event": "part_started", "part": name, "pid": pid})

    def _bury(self, name: str, now: float) -> None:
        """Take note of a part's end, and of when it is started again.

        Raises:
            ServingError: it was never ready.
        """
        process = self._processes[name]
        record = self._records[name].died(now)
        code = process.exit_code()
        # What it had started outlives it: nginx's workers hold the port, a run still writes.
        process.ask_to_end()
        if not process.wait_for_group(END_S):
            process.kill()
        self._records[name] = record
        pause = round(record.due_at - now, 1)
        ended = {"event": "part_ended", "part": name, "code": code, "again_in_s": pause}
        self.tell(ended | {"said": process.last_words()})
        self._processes[name] = PartProcess(process.part)
        if record.is_hopeless:
            what = f"{name} ended before it was ready (code {code}): {process.last_words()}"
            raise ServingError(self.deployment.folder, what, f"see {process.part.log}")

    def _answers(self, name: str, *, for_s: float) -> bool:
        if name == SUPERLINK:
            return superlink_answers(self.deployment)
        if name == PROXY:
            return proxy_answers(self.deployment)
        # SuperExec listens nowhere; what it is told is wrong if it ends at once.
        return for_s >= SETTLED_S

    def _say_ready(self) -> None:
        is_ready = all(record.ready_at is not None for record in self._records.values())
        if is_ready and not self._is_ready:
            pids = {name: process.pid for name, process in self._processes.items()}
            told = {"port": self.deployment.port, "hosts": list(self.deployment.hosts)}
            self.tell({"event": "ready", **told, "pids": pids})
        self._is_ready = is_ready

    def _keep_house(self, now: float) -> None:
        """Do the jobs that are due, cut long logs, and have changed files read."""
        if self._is_ready:
            for job in self.jobs:
                found = job.news(now)
                if found is not None:
                    self.tell(found)
        if now - self._kept_at < HOUSEKEEPING_S:
            return
        self._kept_at = now
        for log in self.deployment.logs.glob("*.log"):
            shorten_log(log)
        for name, process in self._processes.items():
            if process.lives() and self._digest(name) != self._read.get(name):
                self._start_anew(name)

    def _start_anew(self, name: str) -> None:
        """End a part whose files have changed; it is started again at once."""
        process = self._processes[name]
        self.tell({"event": "part_reads_anew", "part": name, "pid": process.pid})
        process.ask_to_end()
        if not process.wait(END_S):
            process.kill()
            process.wait(END_S)
        self._processes[name] = PartProcess(process.part)
        self._records[name] = self._records[name].asked_to_end(time.monotonic())

    def _digest(self, name: str) -> str:
        """Return a digest of the files that a part reads as it starts."""
        place = self.deployment
        inner = (place.inner_certificate, place.inner_key, place.inner_authority)
        read = {
            SUPERLINK: (*inner, place.superexec_secret),
            SUPEREXEC: (place.inner_authority, place.superexec_secret),
            PROXY: (
                *(place.certificate, place.key, place.inner_authority),
                place.nginx_configuration,
            ),
        }
        found = hashlib.sha256()
        for path in read[name]:
            found.update(path.read_bytes() if path.is_file() else b"-")
        return found.hexdigest()

    def _end_all(self) -> None:
        """End everything: first SuperExec and its runs, which still speak to the SuperLink."""
        order = (SUPEREXEC, PROXY, SUPERLINK)
        for name in filter(self._processes.__contains__, order):
            process = self._processes[name]
            process.ask_to_end()
            if not (process.wait(END_S) and process.wait_for_group(END_S)):
                process.kill()
                process.wait(END_S)
            if process.pid is not None:
                code = process.exit_code()
                self.tell({"event": "part_stopped", "part": name, "code": code})
        self.tell({"event": "stopped"})


@contextmanager
def serving_alone(lock: Path) -> Iterator[None]:
    """Keep other processes from serving the same deployment.

    Raises:
        ServingError: one does.
        DeploymentError: the folder refuses.
    """
    try:
        held = lock.open("ab")
    except OSError as error:
        what = f"cannot be written: {error.strerror}"
        raise DeploymentError(lock, what, "check the folder and its owner") from None
    with held:
        try:
            fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            what = "another process serves this deployment"
            raise ServingError(lock.parent, what, "end that one first") from None
        yield
