"""The rounds: a real Flower run that starts from the default bundle, with noise and without."""

from __future__ import annotations

import secrets
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from server.engine.quality_looks import HeldOutPart
from server.engine.rounds import RoundsConfig
from server.engine.training_recipes import FROM_TRAINED_WEIGHTS
from server.flower_app import PlannedRun
from server.runs.folder import RunFolder
from server.runs.report_layout import statement_of

from ..federation import run_planned
from ..fleet_rows import FleetRows
from ..run_report_parts import LearningPoint

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from datetime import datetime
    from pathlib import Path

    import numpy as np
    from numpy.typing import NDArray

    from server.engine.rounds import RoundRecord

    from .plan import DemoPlan
    from .scene import Scene

LOOK_EVERY_DAYS = 2
LOG_FILE = "flower.log"
PRIVATE, WITHOUT_NOISE = "federated_private", "federated_no_noise"
_SPOKEN = {PRIVATE: "private round", WITHOUT_NOISE: "round without noise"}


@dataclass(frozen=True, slots=True)
class RoundsOutcome:
    """What the rounds came to.

    Attributes:
        weights: by model name, float32, shape (n_weights,).
        curves: looks at the weights on the judged fleet, by model name.
        private_report: what stands in `run.json` of the private rounds.
    """

    weights: Mapping[str, NDArray[np.float32]]
    curves: Mapping[str, tuple[LearningPoint, ...]]
    private_report: Mapping[str, Any]


def run_rounds(
    scene: Scene,
    plan: DemoPlan,
    *,
    start: NDArray[np.float32],
    folder: Path,
    clock: Callable[[], datetime],
    tell: Callable[[str], None],
) -> RoundsOutcome:
    """Run the private rounds, and the same rounds without any noise, in one start of the engine.

    Args:
        scene: who trains, and on whom the weights are looked at.
        plan: rounds and privacy.
        start: weights of the default bundle, float32, shape (n_weights,).
        folder: gets a folder for each run, with its ledger, and the engine's log.
        clock: gives now, aware UTC.
        tell: takes a line for each round.

    Raises:
        EngineError: the engine failed.
        RoundsError: a run could not go on.
    """
    look = HeldOutPart(scene.judged.rows, every_days=LOOK_EVERY_DAYS)
    configured = configurations(plan)
    planned = {
        name: PlannedRun(
            config=config,
            folder=RunFolder(folder / name),
            start=start,
            evaluate=look.metrics,
            on_round=teller(name, config, tell),
        )
        for name, config in configured.items()
    }
    rows = FleetRows(
        device_ids=scene.training.device_ids,
        training=scene.training.rows,
        held_out=scene.judged.rows,
    )
    for line in stated(configured[PRIVATE], num_devices=len(scene.training.device_ids)):
        tell(line)
    tell(f"starting Flower: {plan.rounds} rounds over {plan.devices:,} devices, twice")
    run_planned(
        list(planned.values()),
        rows,
        seed=None,
        clock=clock,
        log_file=folder / LOG_FILE,
        num_workers=plan.workers,
    )
    return RoundsOutcome(
        weights={name: _weights_of(run) for name, run in planned.items()},
        curves={name: learning_curve(run.report) for name, run in planned.items()},
        private_report=planned[PRIVATE].report,
    )


def configurations(plan: DemoPlan) -> dict[str, RoundsConfig]:
    """Return what decides both runs; they differ in noise alone, on the server and on devices."""
    recipe = FROM_TRAINED_WEIGHTS
    private = RoundsConfig(
        stream=f"demo-{secrets.token_hex(8)}",
        num_rounds=plan.rounds,
        cohort_size=plan.devices,
        clipping_norm=recipe.clipping_norm,
        epsilon=plan.epsilon,
        delta=plan.delta,
        recipe=recipe.local,
        server=recipe.server,
    )
    without = replace(
        private,
        stream=f"{private.stream}-without-noise",
        epsilon=None,
        recipe=replace(recipe.local, record_noise_multiplier=0.0),
    )
    return {PRIVATE: private, WITHOUT_NOISE: without}


def learning_curve(report: Mapping[str, Any]) -> tuple[LearningPoint, ...]:
    """Return the looks at the weights that `run.json` holds, the one before the first round too."""
    before = 0.0 if report["config"]["epsilon"] is not None else None
    looks = [(0, report["start_metrics"], before)]
    looks += [(r["index"] + 1, r["metrics"], r["epsilon_release"]) for r in report["rounds"]]
    return tuple(
        LearningPoint(
            round=number,
            average_precision=metrics["average_precision"],
            auc=metrics["auc"],
            loss=metrics["loss"],
            epsilon=epsilon,
        )
        for number, metrics, epsilon in looks
        if metrics is not None
    )


def _weights_of(run: PlannedRun) -> NDArray[np.float32]:
    if run.weights is None:
        raise RuntimeError(f"the engine ended before {run.folder.path} had weights")
    return run.weights


def stated(config: RoundsConfig, *, num_devices: int) -> tuple[str, ...]:
    """Say once what every ε of the private rounds means, and rests on.

    Args:
        config: of the private rounds.
        num_devices: that take part.
    """
    terms = config.terms(config.schedule(num_devices))
    return statement_of(terms, knows_owners=False).to_lines()


def teller(
    name: str, config: RoundsConfig, tell: Callable[[str], None]
) -> Callable[[RoundRecord], None]:
    """Return what tells each round of one of the runs in a line, each ε with its δ.

    Args:
        name: of the run.
        config: of it.
        tell: takes a line.
    """

    def on_round(record: RoundRecord) -> None:
        parts = [f"{_SPOKEN[name]} {record.index + 1}/{config.num_rounds}"]
        if record.epsilon_release is not None:
            parts.append(f"ε {record.epsilon_release:.2f} at δ = {config.delta:g}")
        if record.metrics is not None and record.metrics["average_precision"] is not None:
            parts.append(f"average precision {record.metrics['average_precision']:.3f}")
        tell(", ".join(parts))

    return on_round
