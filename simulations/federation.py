"""Runs the real server strategy and the real client code in Flower's simulation engine.

The engine's virtual clients are blocks of devices: a Ray worker gets the weights, the task and the
identifiers of the invited devices of a block, trains each of them with the function that a real
device runs, and answers with the block's sum. Rows are on disk, mapped by every worker.
"""

from __future__ import annotations

import logging
import os
import shutil
import signal
import sys
import tempfile
import threading
import warnings
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache, partial
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from edge_client.flower_app import client_app
from privacy import OperatingSystemNoise
from server.engine.enrolment import Enrolment
from server.engine.rounds import RoundsError
from server.errors import ServerError
from server.flower_app import PlannedRun, server_app

from .errors import SimulationsError
from .seeded_noise import SeededNoise
from .training_row_files import RowFiles, write_row_files

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from datetime import datetime
    from types import FrameType

    from flwr.app import Context

    from models.training_rows import TrainingRows
    from privacy import NoiseSource

    from .cohort_engine import CohortBlock
    from .fleet_rows import FleetRows

BLOCKS_A_WORKER = 2
OBJECT_STORE_BYTES = 100 * 1024 * 1024
STOP_WAIT_S = 30.0

# Ray takes a second to load, so it is loaded where it runs; that it is missing is said before.
if find_spec("ray") is None:
    raise ModuleNotFoundError("No module named 'ray'", name="ray")


class EngineError(SimulationsError):
    """Flower's simulation engine could not run the federation to its end."""

    exit_code = 6


@dataclass(frozen=True, slots=True)
class SimulatedBlock:
    """The devices behind one virtual node.

    Attributes:
        files: rows of the whole fleet.
        block: number of the node.
        seed: of the devices' randomness; None draws from the operating system's entropy.
    """

    files: RowFiles
    block: int
    seed: int | None

    @property
    def device_ids(self) -> tuple[str, ...]:
        """Stable identifiers of the devices."""
        return self.files.device_ids(self.block)

    def rows(self, device_id: str) -> TrainingRows:
        """Training rows of one device."""
        return self.files.rows(device_id)

    def source(self, device_id: str, *, stream: str, index: int) -> NoiseSource:
        """Randomness of one device's training in one step."""
        if self.seed is None:
            return OperatingSystemNoise()
        return SeededNoise(self.seed, "device", stream, device_id, index)


def run_planned(
    runs: Sequence[PlannedRun],
    rows: FleetRows,
    *,
    seed: int | None,
    clock: Callable[[], datetime],
    log_file: Path,
    num_workers: int | None = None,
    block_of: Callable[[RowFiles, int, int | None], SimulatedBlock | CohortBlock] | None = None,
) -> None:
    """Carry out runs one after the other in one start of the engine.

    Args:
        runs: each leaves its result in itself and in its folder.
        rows: of the fleet.
        seed: of the devices' randomness; None draws from the operating system's entropy.
        clock: gives now, aware UTC.
        log_file: takes what Flower and Ray say.
        num_workers: processes that train; None takes one a core.
        block_of: makes the devices behind a node of rows, the node's number and the seed; None
            takes `SimulatedBlock`, `cohort_engine.CohortBlock` trains them in batched products.

    Raises:
        EngineError: the engine stopped before the runs had ended.
        RoundsError: a run could not go on.
        KeyboardInterrupt: passed on once every file is whole and Ray has ended.
    """
    from flwr.simulation import run_simulation

    workers = num_workers or os.cpu_count() or 1
    for run in runs:
        run.enrolment = run.enrolment or Enrolment.of_fleet(rows.device_ids)
    groups = max((run.config.num_groups for run in runs if run.config.has_group_rule), default=0)
    num_blocks = min(max(workers * BLOCKS_A_WORKER, groups), len(rows.device_ids))
    stop, done = threading.Event(), threading.Event()
    failure: list[BaseException] = []
    with _scratch() as scratch, _logs_to(log_file):
        row_folder = scratch / "rows"
        row_folder.mkdir()
        write_row_files(
            row_folder, device_ids=rows.device_ids, rows=rows.training, num_blocks=num_blocks
        )
        app = server_app(runs, num_nodes=num_blocks, stop=stop, done=done, clock=clock)
        has_started = False
        try:
            with _own_signals(), _ray(workers, scratch), _stop_on_signals(stop) as signals:
                has_started = True
                run_simulation(
                    server_app=app,
                    client_app=client_app(
                        partial(_block_behind, str(row_folder), seed, block_of or SimulatedBlock)
                    ),
                    num_supernodes=num_blocks,
                    backend_config={"client_resources": {"num_cpus": 1, "num_gpus": 0.0}},
                )
            if signals:
                failure.append(KeyboardInterrupt())
        except KeyboardInterrupt as interrupt:
            failure.append(interrupt)
        except (RoundsError, ServerError) as error:
            failure.append(error)
        except RuntimeError as error:
            failure.append(
                EngineError(f"Flower's simulation engine failed: {error}; see {log_file}")
            )
            failure[0].__cause__ = error
        finally:
            stop.set()
            if has_started:
                done.wait(STOP_WAIT_S)
    if failure or not all(run.weights is not None for run in runs):
        for run in runs:
            run.folder.discard_unless_begun(run.config.stream)
    if failure:
        raise failure[0]


@lru_cache(maxsize=1)
def _row_files(row_folder: str) -> RowFiles:
    """Keep the mapped files of a worker open from message to message."""
    return RowFiles(Path(row_folder))


def _block_behind(
    row_folder: str,
    seed: int | None,
    block_of: Callable[[RowFiles, int, int | None], SimulatedBlock | CohortBlock],
    context: Context,
) -> SimulatedBlock | CohortBlock:
    block = int(context.node_config["partition-id"])
    return block_of(_row_files(row_folder), block, seed)


@contextmanager
def _own_signals() -> Iterator[None]:
    """Put handlers of signals back: Ray leaves one that ends a process without its farewells."""
    before = {
        number: handler
        for number in (signal.SIGINT, signal.SIGTERM)
        if (handler := signal.getsignal(number)) is not None
    }
    try:
        yield
    finally:
        if threading.current_thread() is threading.main_thread():
            for number, handler in before.items():
                signal.signal(number, handler)


@contextmanager
def _ray(workers: int, scratch: Path) -> Iterator[None]:
    """Ray on this machine, started before Flower would and ended whatever happens."""
    import ray

    # Ray gives its workers niceness 15 unless told otherwise, which halves a round where anything
    # else runs.
    os.environ["RAY_worker_niceness"] = "0"  # noqa: SIM112 - Ray reads it in this spelling
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("FLWR_TELEMETRY_ENABLED", "0")
    try:
        ray.init(
            num_cpus=workers,
            include_dashboard=False,
            log_to_driver=False,
            logging_level=logging.ERROR,
            object_store_memory=OBJECT_STORE_BYTES,
            runtime_env={"env_vars": {"PYTHONPATH": os.pathsep.join(sys.path)}},
            _temp_dir=str(scratch / "ray"),
        )
        yield
    finally:
        ray.shutdown()


@contextmanager
def _stop_on_signals(stop: threading.Event) -> Iterator[list[int]]:
    """Let an interrupt or a termination end the run between two messages, with whole files.

    Raised in the middle of Flower's engine, either would leave its threads waiting for workers
    that are gone, and the process would never end. A second signal does what it did before.

    Yields:
        The signals that came.
    """
    came: list[int] = []
    if threading.current_thread() is not threading.main_thread():
        yield came
        return
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}

    def restore() -> None:
        for number, handler in before.items():
            signal.signal(number, handler)

    def on_signal(number: int, _frame: FrameType | None) -> None:
        came.append(number)
        stop.set()
        restore()

    for number in before:
        signal.signal(number, on_signal)
    try:
        yield came
    finally:
        restore()


@contextmanager
def _scratch() -> Iterator[Path]:
    """A folder of short name (Ray puts sockets there), gone afterwards."""
    folder = Path(tempfile.mkdtemp(prefix="fedcell-"))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def _logs_to(path: Path) -> Iterator[None]:
    """Send what Flower and Ray log to a file, so that a progress bar stays readable."""
    handler = logging.FileHandler(path, encoding="utf-8")
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    loggers = [logging.getLogger(name) for name in ("flwr", "ray")]
    before = [(logger, logger.handlers[:], logger.propagate) for logger in loggers]
    for logger in loggers:
        logger.handlers, logger.propagate = [handler], False
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, handlers, propagate in before:
            logger.handlers, logger.propagate = handlers, propagate
        handler.close()
