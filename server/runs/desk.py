"""Between a run and those who operate it: tells them what it does, and it what they ask.

The loop over rounds calls `RunDesk.take` at each phase of a step and, while it waits for replies,
at each look for them. The desk writes status, metrics and log, holds the run before an invitation
while somebody has paused it, and raises where somebody has cancelled it. It changes nothing of what
a run computes: a run without a desk gives the same bits.
"""

from __future__ import annotations

import logging
import time
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import timedelta
from typing import TYPE_CHECKING, Final

from models.errors import PlaceRefusedError
from privacy.statement import OF_RELEASES

from ..engine.rounds import RoundsError
from .control import RequestWatch, RunCancelledError, Wish, clear_requests
from .heartbeat import beating
from .log import EngineLog
from .status import (
    EndCause,
    EnginePhase,
    ProcessMark,
    RunState,
    RunStatus,
    StepProgress,
    eta_after,
    write_status,
)

if TYPE_CHECKING:
    import threading
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from datetime import datetime
    from pathlib import Path

    from ..engine.rounds import RoundRecord, RoundsConfig
    from .metrics import RunMetrics

logger = logging.getLogger(__name__)

LOOK_S: Final = 0.2
"""Least time between two looks at what operators ask, while replies come in."""
WRITE_S: Final = 1.0
"""Least time between two writes of a status that must survive a power cut."""
_CAUSES: Final = {
    RunState.FINISHED: EndCause.ALL_ROUNDS,
    RunState.INTERRUPTED: EndCause.STOPPED,
    RunState.CANCELLED: EndCause.CANCELLED,
    RunState.FAILED: EndCause.FAILED,
}
_STEERED: Final = frozenset({EnginePhase.BETWEEN, EnginePhase.COLLECTING})


class MetricsPortError(RoundsError):
    """The port for metrics cannot be served; nothing was started."""

    exit_code = 6


@dataclass(frozen=True, slots=True, kw_only=True)
class Watching:
    """How a run can be watched.

    Attributes:
        go_on: command with which it goes on after its process has gone.
        log_level: least level of the engine's log: debug, info, warning or error.
        metrics_host: address on which metrics are served.
        metrics_port: its TCP port, 0 for any free one; None serves none.
        round_every_s: seconds from a round's release to the next invitation; 0 does not wait.
    """

    go_on: str = ""
    log_level: str = "info"
    metrics_host: str = "127.0.0.1"
    metrics_port: int | None = None
    round_every_s: float = 0.0


@dataclass(frozen=True, slots=True)
class Farewell:
    """What is said of a run's end beside its state.

    Attributes:
        because: why it ended.
        message: in words; empty where the cause says it all.
    """

    because: EndCause
    message: str = ""


@dataclass(slots=True)
class RunDesk:
    """The desk of one run; `open_desk` makes it.

    Attributes:
        folder: of the run.
        status: as last shown.
        clock: gives now, aware UTC.
        stop: set from outside to end the run.
        log: of the engine.
        deadline_s: how long a round waits for replies.
        metrics: for Prometheus; None where its library is not installed.
        seconds: how long each round took so far.
        has_finished: whether the run came to its own end.
        farewell: why the run ended; None where nobody has said it.
    """

    folder: Path
    status: RunStatus
    clock: Callable[[], datetime]
    stop: threading.Event
    log: EngineLog
    deadline_s: float
    metrics: RunMetrics | None
    seconds: list[float]
    has_finished: bool = False
    farewell: Farewell | None = None
    _requests: RequestWatch = field(init=False)
    _looked: float = field(init=False, default=float("-inf"))
    _written: float = field(init=False, default=float("-inf"))
    _refused: dict[str, int] = field(init=False, default_factory=dict)

    def __post_init__(self) -> None:
        """Begin to look for requests."""
        self._requests = RequestWatch(self.folder)

    def begin(self, quality: Mapping[str, float | None] | None, *, is_resumed: bool) -> None:
        """Say that the run begins, or goes on.

        Args:
            quality: of the weights that it starts from; None where nobody looked.
            is_resumed: whether rounds lie behind it.
        """
        if self.status.quality is None and quality is not None:
            self.status = replace(self.status, quality=dict(quality))
        self.log.say(
            "info",
            "run_goes_on" if is_resumed else "run_starts",
            num_rounds=self.status.num_rounds,
            rounds_done=self.status.rounds_done,
            pid=self.status.process.pid,
        )
        self._show(self.status, durably=True)

    def take(self, progress: StepProgress) -> None:
        """Show how far a step has come, and let operators steer where they may.

        Raises:
            RunCancelledError: somebody asked that the run end, and the step is not committed.
        """
        is_new = (progress.phase, progress.index) != (self.status.phase, self.status.index)
        if not is_new and time.monotonic() - self._looked < LOOK_S:
            return
        self._looked = time.monotonic()
        status = self.status.at_step(progress)
        if progress.phase is not EnginePhase.COLLECTING:
            status = replace(status, deadline_at=None)
        elif is_new:
            deadline = self.clock() + timedelta(seconds=self.deadline_s)
            status = replace(status, deadline_at=deadline)
        if progress.index != self.status.index:
            self._refused = {}
        if is_new:
            self.log.say(
                "debug",
                "phase",
                index=progress.index,
                phase=progress.phase,
                invited=progress.invited or None,
                replied=progress.replied or None,
            )
        self._log_refusals(progress)
        self._show(status, durably=is_new)
        if progress.phase in _STEERED:
            self._obey(progress)

    def round_done(self, record: RoundRecord) -> None:
        """Show a round that is released and kept."""
        self.seconds.append(record.seconds)
        done = self.status.rounds_done + 1
        status = replace(
            self.status,
            rounds_done=done,
            noise_only_rounds=self.status.noise_only_rounds + record.noise_only,
            epsilon_release=record.epsilon_release,
            index=record.index,
            invited=record.invited,
            replied=record.replied,
            refused=dict(record.refused),
        )
        status = replace(status, eta_at=self._eta(done))
        if record.metrics is not None:
            status = replace(status, quality=dict(record.metrics), quality_index=record.index)
        if self.metrics is not None:
            self.metrics.add(record)
        self.log.say(
            "warning" if record.noise_only else "info",
            "round_released",
            index=record.index,
            invited=record.invited,
            replied=record.replied,
            refused=record.refused or None,
            noise_only=record.noise_only,
            seconds=record.seconds,
            epsilon_release=record.epsilon_release,
            delta=self.status.delta,
            quality=record.metrics,
            weights_sha256=record.weights_sha256 or None,
            ledger_hash=record.ledger_hash or None,
        )
        self._show(status, durably=True)

    @contextmanager
    def at_work(self) -> Iterator[None]:
        """Give signs of life while what goes on tells no progress; nothing else is shown then."""
        with beating(lambda: self._show(self.status, durably=False)):
            yield

    @contextmanager
    def attend(self) -> Iterator[None]:
        """Say how the run ended, however it does."""
        try:
            yield
        except RunCancelledError as error:
            self.close(RunState.CANCELLED, str(error))
            raise
        except Exception as error:
            self.close(RunState.FAILED, " ".join(str(error).split()) or type(error).__name__)
            raise
        except BaseException:
            self.close(RunState.INTERRUPTED)
            raise
        else:
            said = "" if self.farewell is None else self.farewell.message
            self.close(RunState.FINISHED if self.has_finished else RunState.INTERRUPTED, said)

    def close(self, state: RunState, message: str = "") -> None:
        """Say how the run ended, and let go of log and port.

        Args:
            state: how it ended.
            message: why, in words; empty where the state says it all.
        """
        status = replace(
            self.status,
            state=state,
            phase=EnginePhase.ENDED,
            message=message,
            ended_because=_CAUSES[state] if self.farewell is None else self.farewell.because,
            deadline_at=None,
            eta_at=None,
            held_by="",
        )
        self._written = float("-inf")
        self._show(status, durably=True)
        self.log.say(
            "info" if state is RunState.FINISHED else "warning",
            "run_ends",
            state=state,
            ended_because=status.ended_because,
            rounds_done=status.rounds_done,
            num_rounds=status.num_rounds,
            epsilon_release=status.epsilon_release,
            delta=status.delta,
            message=message or None,
        )
        self.log.close()
        if self.metrics is not None:
            self.metrics.close()

    def _obey(self, progress: StepProgress) -> None:
        """Do what operators ask: hold before an invitation, end before a sum is committed."""
        requests = self._requests.look()
        if requests.wish is Wish.HOLD and not self.status.held_by:
            pause = requests.pause
            self.log.say(
                "info",
                "pause_asked",
                index=progress.index,
                asked_by=None if pause is None else pause.asked_by,
                asked_at=None if pause is None else pause.asked_at.isoformat(),
                reason=None if pause is None else pause.reason or None,
            )
            self._show(replace(self.status, held_by=requests.holder), durably=True)
        if progress.phase is EnginePhase.BETWEEN and requests.wish is Wish.HOLD:
            self._hold(progress)
            requests = self._requests.look()
        if self.status.held_by and requests.wish is Wish.GO:
            lifted = requests.pause
            self.log.say(
                "info",
                "pause_lifted",
                index=progress.index,
                asked_by=None if lifted is None else lifted.asked_by,
                asked_at=None if lifted is None else lifted.asked_at.isoformat(),
            )
            going = replace(self.status, state=RunState.RUNNING, held_by="", eta_at=self._eta())
            self._show(going, durably=True)
        if requests.cancel is not None:
            self.log.say(
                "warning",
                "cancel_asked",
                index=progress.index,
                phase=progress.phase,
                asked_by=requests.cancel.asked_by,
                asked_at=requests.cancel.asked_at.isoformat(),
                reason=requests.cancel.reason or None,
            )
            raise RunCancelledError(requests.cancel)

    def _eta(self, done: int | None = None) -> datetime | None:
        left = self.status.num_rounds - (self.status.rounds_done if done is None else done)
        return eta_after(self.clock(), self.seconds, rounds_left=left)

    def _hold(self, progress: StepProgress) -> None:
        self.log.say("info", "holding", index=progress.index)
        self._show(replace(self.status, state=RunState.PAUSED, eta_at=None), durably=True)
        shown = time.monotonic()
        while self._requests.look().wish is Wish.HOLD and not self.stop.wait(LOOK_S):
            if time.monotonic() - shown >= WRITE_S:
                self._show(self.status, durably=False)
                shown = time.monotonic()

    def _log_refusals(self, progress: StepProgress) -> None:
        new = {
            reason: count - self._refused.get(reason, 0)
            for reason, count in progress.refused.items()
            if count > self._refused.get(reason, 0)
        }
        if new:
            self._refused = dict(progress.refused)
            self.log.say("warning", "replies_refused", index=progress.index, refused=new)

    def _show(self, status: RunStatus, *, durably: bool) -> None:
        """Write status and metrics; a disk that refuses them does not end the run."""
        self.status = replace(status, heartbeat_at=self.clock())
        is_due = time.monotonic() - self._written >= WRITE_S
        try:
            write_status(self.folder, self.status, durably=durably and is_due)
            if is_due:
                self._written = time.monotonic()
                self._show_metrics()
        except (OSError, PlaceRefusedError) as error:
            logger.warning("%s: no status can be written (%s)", self.folder, error)

    def _show_metrics(self) -> None:
        if self.metrics is not None:
            self.metrics.show(self.status)
            self.metrics.write(self.folder)


def open_desk(
    folder: Path,
    *,
    config: RoundsConfig,
    clock: Callable[[], datetime],
    stop: threading.Event,
    watching: Watching,
    records: Sequence[RoundRecord] = (),
    is_resumed: bool = False,
    home: str = "",
) -> RunDesk:
    """Open the desk of a run that begins or goes on.

    Args:
        folder: of the run.
        config: what decides the run.
        clock: gives now, aware UTC.
        stop: set from outside to end the run.
        watching: how it can be watched.
        records: of the rounds that lie behind it.
        is_resumed: whether the folder holds the run's first part; else old requests are forgotten.
        home: privacy home that the run charges; empty for the run's own folder.

    Raises:
        MetricsPortError: the port for metrics cannot be served.
        ValueError: there is no such log level.
    """
    if not is_resumed:
        clear_requests(folder)
    seen = next((r for r in reversed(records) if r.metrics is not None), None)
    unbounded_or_none = None if config.epsilon is None else 0.0
    status = RunStatus(
        run=config.stream,
        state=RunState.RUNNING,
        phase=EnginePhase.STARTING,
        num_rounds=config.num_rounds,
        rounds_done=len(records),
        noise_only_rounds=sum(r.noise_only for r in records),
        epsilon_planned=config.epsilon,
        epsilon_release=records[-1].epsilon_release if records else unbounded_or_none,
        delta=config.delta,
        unit_of_privacy=OF_RELEASES.unit,
        quality=None if seen is None else seen.metrics,
        quality_index=None if seen is None else seen.index,
        started_at=clock(),
        heartbeat_at=clock(),
        process=ProcessMark.here(),
        go_on=watching.go_on,
        home=home,
    )
    return RunDesk(
        folder=folder,
        status=status,
        clock=clock,
        stop=stop,
        log=EngineLog(folder, run=config.stream, clock=clock, level=watching.log_level),
        deadline_s=config.deadline_s,
        metrics=_metrics(status, records, watching),
        seconds=[record.seconds for record in records],
    )


def _metrics(
    status: RunStatus, records: Sequence[RoundRecord], watching: Watching
) -> RunMetrics | None:
    """Make the run's metrics and serve them where a port is asked for."""
    try:
        from .metrics import RunMetrics
    except ModuleNotFoundError:
        if watching.metrics_port is not None:
            raise
        logger.info("no metrics: prometheus-client is not installed")
        return None
    metrics = RunMetrics(status, records)
    if watching.metrics_port is not None:
        try:
            metrics.serve(host=watching.metrics_host, port=watching.metrics_port)
        except OSError as error:
            where = f"{watching.metrics_host}:{watching.metrics_port}"
            raise MetricsPortError(
                f"metrics cannot be served at {where} ({error.strerror}); give another "
                "--metrics-port, or 0 for any free one"
            ) from error
    return metrics
