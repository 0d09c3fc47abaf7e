"""ServerApp only: finds the devices, runs the rounds, leaves the report."""

from __future__ import annotations

import platform
import secrets
import threading
import time
from dataclasses import dataclass, field
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from flwr.serverapp import ServerApp

from privacy import OperatingSystemNoise

from .rounds import (
    RoundRecord,
    RoundsConfig,
    RoundsError,
    RunFolder,
    record_epsilon,
    release_noise,
    report_of,
)
from .server_optimizer import OptimizerState
from .strategy import FederatedRounds, Roster, ask_for_devices
from .training_recipes import FROM_TRAINED_WEIGHTS

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from flwr.app import Context
    from flwr.serverapp import Grid
    from numpy.typing import NDArray

    from privacy import NoiseSource

    from .strategy import Metrics

LIBRARIES = ("fedcell", "flwr", "torch", "opacus", "dp-accounting", "numpy", "onnx")


@dataclass(slots=True, kw_only=True)
class PlannedRun:
    """One run of rounds that a ServerApp is to carry out.

    Attributes:
        config: what decides it.
        folder: where it is recorded.
        start: weights to start from, float32, shape (n_weights,).
        source: of the noise on released steps.
        evaluate: looks at weights on data that is not the devices'.
        on_start: told the metrics of the starting weights and the planned σ (0 without noise).
        on_round: told of each round.
        weights: the result, once the run has ended.
        report: what stands in `run.json`.
    """

    config: RoundsConfig
    folder: RunFolder
    start: NDArray[np.float32]
    source: NoiseSource
    evaluate: Callable[[NDArray[np.float32]], Metrics] | None = None
    on_start: Callable[[Metrics | None, float], None] | None = None
    on_round: Callable[[RoundRecord], None] | None = None
    weights: NDArray[np.float32] | None = None
    report: dict[str, Any] = field(default_factory=dict)

    def result(self) -> NDArray[np.float32]:
        """Return the weights after the last round.

        Raises:
            RoundsError: the run was not carried out to its end.
        """
        if self.weights is None or self.report.get("status") != "finished":
            raise RoundsError(
                f"{self.folder.path}: the run did not reach its last round; see its log"
            )
        return self.weights


def server_app(
    runs: Sequence[PlannedRun],
    *,
    num_nodes: int,
    stop: threading.Event,
    done: threading.Event,
    clock: Callable[[], datetime],
    nodes_deadline_s: float = 120.0,
) -> ServerApp:
    """Make the ServerApp that carries out runs one after the other.

    Args:
        runs: each leaves its result in itself and in its folder.
        num_nodes: nodes to wait for.
        stop: set from outside to end after the messages in hand.
        done: set when nothing more is written.
        clock: gives now, aware UTC.
        nodes_deadline_s: how long to wait for the nodes.
    """
    app = ServerApp()

    @app.main()
    def main(grid: Grid, _context: Context) -> None:
        try:
            roster = ask_for_devices(
                grid, num_nodes=num_nodes, deadline_s=nodes_deadline_s, stop=stop
            )
            for run in runs:
                if stop.is_set():
                    return
                carry_out(run, grid, roster=roster, stop=stop, clock=clock)
        finally:
            done.set()

    return app


def carry_out(
    run: PlannedRun,
    grid: Grid,
    *,
    roster: Roster,
    stop: threading.Event,
    clock: Callable[[], datetime],
) -> None:
    """Carry out one run and keep its report after every round."""
    config = run.config
    schedule = config.schedule(len(roster.device_ids))
    policy = config.policy(schedule)
    noise = release_noise(policy, run.source)
    started_at, started = clock(), time.perf_counter()
    start_metrics = None if run.evaluate is None else run.evaluate(run.start)
    if run.on_start is not None:
        run.on_start(start_metrics, noise.noise_multiplier)
    records: list[RoundRecord] = []
    versions = versions_here()

    def report(status: str) -> None:
        # The record-level figure takes a second to compute: it is left out while the run goes on.
        record: tuple[float | None, float | None] = (None, None)
        if status != "running":
            record = record_epsilon(
                config.recipe,
                participations=records[-1].most_participations if records else 0,
                delta=config.record_delta,
            )
        run.report = report_of(
            config,
            status=status,
            schedule=schedule,
            policy=policy,
            noise=noise,
            rounds=records,
            start_metrics=start_metrics,
            record=record,
            ledger_head=run.folder.ledger_head,
            versions=versions,
            started_at=started_at,
            seconds=time.perf_counter() - started,
        )
        run.folder.save_report(run.report)

    def on_round(record: RoundRecord) -> None:
        records.append(record)
        report("running")
        if run.on_round is not None:
            run.on_round(record)

    rounds = FederatedRounds(
        config=config,
        folder=run.folder,
        roster=roster,
        schedule=schedule,
        policy=policy,
        noise=noise,
        state=OptimizerState.start(run.start),
        clock=clock,
        stop=stop,
        evaluate=run.evaluate,
        on_round=on_round,
    )
    report("running")
    finished = False
    try:
        finished = rounds.run(grid)
    finally:
        run.weights = rounds.weights()
        run.folder.save_weights(run.weights)
        report("finished" if finished else "interrupted")


def deployed_run(run_config: Mapping[str, object]) -> PlannedRun:
    """Read one run, which starts from trained weights, from a deployed Flower run's configuration.

    Keys, with the defaults that `[tool.flwr.app.config]` in pyproject.toml gives them: `out`
    (required: a folder), `start-weights` (required: an .npz with the array `weights`, as a run
    leaves it), `least-nodes` (1: nodes to wait for), `rounds` (24), `cohort` (2000),
    `epsilon` (2.0), `delta` (1e-8), `clipping-norm` (0.3), `deadline-s` (600.0).

    Raises:
        RoundsError: a key is missing, or has no value.
        ValueError: a value is out of bounds.
    """
    with np.load(_value(run_config, "start-weights"), allow_pickle=False) as arrays:
        start = arrays["weights"].astype(np.float32)
    config = RoundsConfig(
        stream=f"run-{secrets.token_hex(8)}",
        num_rounds=int(_value(run_config, "rounds")),
        cohort_size=int(_value(run_config, "cohort")),
        clipping_norm=float(_value(run_config, "clipping-norm")),
        recipe=FROM_TRAINED_WEIGHTS.local,
        server=FROM_TRAINED_WEIGHTS.server,
        epsilon=float(_value(run_config, "epsilon")),
        delta=float(_value(run_config, "delta")),
        deadline_s=float(_value(run_config, "deadline-s")),
    )
    return PlannedRun(
        config=config,
        folder=RunFolder(Path(_value(run_config, "out"))),
        start=start,
        source=OperatingSystemNoise(),
    )


def _value(run_config: Mapping[str, object], key: str) -> Any:
    value = run_config.get(key, "")
    if value == "":
        what = f"the run's configuration lacks {key!r}"
        raise RoundsError(f"{what}; add --run-config '{key}=…', a text in double quotes")
    return value


app = ServerApp()
"""The ServerApp of a deployment: one run, from the run's configuration, over all nodes here."""


@app.main()
def main(grid: Grid, context: Context) -> None:
    """Carry out the run that the Flower run's configuration describes."""
    stop = threading.Event()
    num_nodes = int(_value(context.run_config, "least-nodes"))
    roster = ask_for_devices(grid, num_nodes=num_nodes, deadline_s=120.0, stop=stop)
    run = deployed_run(context.run_config)
    carry_out(run, grid, roster=roster, stop=stop, clock=lambda: datetime.now(UTC))


def versions_here() -> dict[str, str]:
    """Return the versions of Python and of the libraries that decide a run's outcome."""
    versions = {"python": platform.python_version()}
    for name in LIBRARIES:
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return versions
