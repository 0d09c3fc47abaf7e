"""What privacy costs in quality: rounds over a simulated fleet with and without release noise.

Every part that decides is the real one: invitations, training on the device with record-level
DP-SGD, clipping, the exact sum, the correlated noise of a stream, the server's optimiser. Only the
carrier is left out: devices train side by side in one process instead of through Flower, which does
not change a number. Noise comes from a seed, so that nothing made here can be released.

The two arms of a seed differ in the noise of releases alone: the same start, cohorts, coins and
record-level noise.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from edge_client.closed_form_training import ClosedFormTraining
from edge_client.local_training import DEVICES_AT_ONCE, sum_of_clipped
from models.durable_file import write_durably
from models.training.local_epochs import new_flat_weights
from models.wire.rounds import LocalRecipe
from privacy import (
    RecordLevelSteps,
    StreamPolicy,
    UpdateGrid,
    WithoutNoise,
    policy_for,
)
from privacy.policy import record_policy
from privacy.record_accountant import RecordAccountant
from privacy.statement import NEIGHBORING_RELATION, PUBLIC_INVITATIONS
from server.engine.aggregation import CohortSum, mean_update
from server.engine.cohorts import CohortHistory, Schedule, invitation_order, select_cohort
from server.engine.quality_looks import HeldOutPart
from server.engine.server_optimizer import OptimizerState, ServerRecipe, optimizer_step

from .seeded_noise import SeededNoise
from .seeded_streams import seeded_stream

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping
    from pathlib import Path

    from numpy.typing import NDArray

    from privacy import ReleaseNoise

    from .quality_fleet import StudyFleet

ARMS: Final = ("without noise", "private")
RECORD_DELTA: Final = 1e-5
UNIT: Final = "one device: all that it sends in the stream"
ASSUMPTIONS: Final = (
    NEIGHBORING_RELATION,
    "the aggregator is trusted to add the noise",
    PUBLIC_INVITATIONS,
    "no amplification by sampling",
    "every step is released; participations lie at least b steps apart, at most k",
    "simulated: the noise comes from a seed, so these very releases protect nobody",
)

Metrics = dict[str, float | None]


@dataclass(frozen=True, slots=True, kw_only=True)
class QualityPlan:
    """What the arms of a study run.

    Attributes:
        num_rounds: T.
        cohort_size: n.
        epsilon: ε_release of the private arm.
        delta: its δ.
        clipping_norm: C.
        local: how devices train.
        server: how releases move the weights.
        look_every: rounds between two looks at the held-out devices.
    """

    num_rounds: int = 200
    cohort_size: int = 500
    epsilon: float = 2.0
    delta: float = 1e-8
    clipping_norm: float = 0.8
    local: LocalRecipe = field(
        default_factory=lambda: LocalRecipe(
            sampling_rate=0.5,
            expected_batch_size=160,
            learning_rate=1.0,
            record_noise_multiplier=1.25,
            record_max_grad_norm=2.0,
        )
    )
    server: ServerRecipe = field(
        default_factory=lambda: ServerRecipe(
            optimizer="fedavgm", learning_rate=1.25, final_rate=0.02
        )
    )
    look_every: int = 50

    def schedule(self, population_size: int) -> Schedule:
        """Return the public schedule."""
        return Schedule(
            population_size=population_size,
            cohort_size=self.cohort_size,
            num_rounds=self.num_rounds,
        )

    def policy(self, schedule: Schedule, *, stream: str) -> StreamPolicy:
        """Return the constants of the private arm's stream: the least σ for ε, δ and k."""
        return StreamPolicy(
            stream=stream,
            num_rounds=self.num_rounds,
            cohort_size=self.cohort_size,
            privacy=policy_for(
                epsilon=self.epsilon,
                delta=self.delta,
                max_participations=schedule.participations,
                clipping_norm=self.clipping_norm,
                min_separation=schedule.min_separation,
                min_cohort_size=self.cohort_size,
                bands=schedule.min_separation,
            ),
            record=record_policy(self.local),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class ArmResult:
    """What one arm of one seed gave.

    Attributes:
        seed: of start, cohorts, coins and noise.
        arm: one of `ARMS`.
        looks: metrics on held-out devices by number of rounds done; 0 is the start.
    """

    seed: int
    arm: str
    looks: Mapping[int, Metrics]

    @property
    def start(self) -> Metrics:
        """Metrics of the random weights."""
        return self.looks[0]

    @property
    def end(self) -> Metrics:
        """Metrics after the last round."""
        return self.looks[max(self.looks)]


def run_arm(
    fleet: StudyFleet,
    look: HeldOutPart,
    plan: QualityPlan,
    *,
    seed: int,
    arm: str,
    on_round: Callable[[], None] = lambda: None,
) -> ArmResult:
    """Run all rounds of one arm.

    Args:
        fleet: whose devices train.
        look: at devices that never train.
        plan: of the study.
        seed: of start, cohorts, coins and noise.
        arm: one of `ARMS`.
        on_round: told of each round done.
    """
    schedule = plan.schedule(len(fleet.device_ids))
    policy = plan.policy(schedule, stream=f"quality-{seed}")
    noise: ReleaseNoise = WithoutNoise() if arm == ARMS[0] else seeded_stream(seed, policy)
    order = invitation_order(fleet.device_ids, stream=policy.stream)
    history = CohortHistory.empty(len(fleet.device_ids))
    start = new_flat_weights(seed=seed)
    state = OptimizerState.start(start)
    looks = {0: look.metrics(start)}
    grid = UpdateGrid(clipping_norm=plan.clipping_norm)
    for index in range(plan.num_rounds):
        cohort = select_cohort(
            order,
            schedule=schedule,
            history=history,
            index=index,
            max_participations=policy.privacy.max_participations,
            min_separation=policy.privacy.min_separation,
        )
        history = history.after(cohort, index=index)
        weights = state.weights.astype(np.float32)
        total = _cohort_sum(fleet, plan, cohort, weights, grid=grid, seed=seed, index=index)
        update = mean_update(
            total.total,
            noise=noise.noise(index, len(weights)),
            num_invited=plan.cohort_size,
            grid=grid,
        )
        rate = plan.server.rate_at(index, num_rounds=plan.num_rounds)
        state = optimizer_step(state, update, recipe=plan.server, rate=rate)
        done = index + 1
        if done % plan.look_every == 0 or done == plan.num_rounds:
            looks[done] = look.metrics(state.weights.astype(np.float32))
        on_round()
    return ArmResult(seed=seed, arm=arm, looks=looks)


def _cohort_sum(
    fleet: StudyFleet,
    plan: QualityPlan,
    cohort: NDArray[np.intp],
    weights: NDArray[np.float32],
    *,
    grid: UpdateGrid,
    seed: int,
    index: int,
) -> CohortSum:
    """Train the invited devices that have enough rows, and add up what they send."""
    trainer = ClosedFormTraining(plan.local)
    total = CohortSum.empty(trainer.num_weights)
    spans = [(device, fleet.spans[device]) for device in cohort.tolist()]
    training = [
        (device, span) for device, span in spans if span[1] - span[0] >= plan.local.least_rows
    ]
    for first in range(0, len(training), DEVICES_AT_ONCE):
        block = training[first : first + DEVICES_AT_ONCE]
        changes = trainer.changes_of_scaled(
            fleet.rows,
            [span for _, span in block],
            [SeededNoise(seed, "device", fleet.device_ids[device], index) for device, _ in block],
            weights=weights,
        )
        total.add(sum_of_clipped(changes, grid=grid), num_devices=len(block))
    return total


def run_study(
    fleet: StudyFleet,
    plan: QualityPlan,
    *,
    seeds: Iterable[int],
    folder: Path,
    on_arm: Callable[[int, str], None] = lambda _seed, _arm: None,
    on_round: Callable[[], None] = lambda: None,
) -> dict[str, Any]:
    """Run both arms of every seed, except those that the folder holds already.

    Args:
        fleet: whose devices train.
        plan: of the study.
        seeds: one start each; not those that settings were chosen with.
        folder: one file for each arm of each seed and plan; a study that was stopped goes on.
        on_arm: told of each arm before it runs or is read.
        on_round: told of each round done.

    Returns:
        The summary, as a JSON object.
    """
    folder.mkdir(parents=True, exist_ok=True)
    name = study_name(fleet, plan)
    look: HeldOutPart | None = None
    results: list[ArmResult] = []
    for seed in seeds:
        for arm in ARMS:
            on_arm(seed, arm)
            path = folder / f"{name}-seed-{seed}-{arm.replace(' ', '-')}.json"
            if not path.exists():
                look = look or HeldOutPart(fleet.held_out, every_days=1)
                result = run_arm(fleet, look, plan, seed=seed, arm=arm, on_round=on_round)
                write_durably(path, json.dumps(asdict(result)).encode())
            results.append(_read(path))
    return summary_of(results, fleet=fleet, plan=plan)


def study_name(fleet: StudyFleet, plan: QualityPlan) -> str:
    """Name a fleet and a plan by their content, so that results of others are never taken."""
    content = json.dumps([fleet.plan.to_json(), asdict(plan)], sort_keys=True)
    return hashlib.sha256(content.encode()).hexdigest()[:12]


def _read(path: Path) -> ArmResult:
    value = json.loads(path.read_text(encoding="utf-8"))
    looks = {int(done): metrics for done, metrics in value["looks"].items()}
    return ArmResult(seed=value["seed"], arm=value["arm"], looks=looks)


def summary_of(
    results: Iterable[ArmResult], *, fleet: StudyFleet, plan: QualityPlan
) -> dict[str, Any]:
    """Sum up both arms over the seeds, with every ε beside its δ, unit and assumptions."""
    by_seed: dict[int, dict[str, ArmResult]] = {}
    for result in results:
        by_seed.setdefault(result.seed, {})[result.arm] = result
    schedule = plan.schedule(len(fleet.device_ids))
    policy = plan.policy(schedule, stream="quality").privacy
    steps = RecordLevelSteps(
        noise_multiplier=plan.local.record_noise_multiplier,
        max_grad_norm=plan.local.record_max_grad_norm,
        sampling_rate=plan.local.sampling_rate,
        steps=plan.local.steps * schedule.participations,
    )
    record = RecordAccountant([steps]).statement(delta=RECORD_DELTA)
    return {
        "fleet": fleet.plan.to_json(),
        "plan": asdict(plan),
        "seeds": [_of_seed(seed, arms) for seed, arms in sorted(by_seed.items())],
        "privacy": {
            "epsilon_release": policy.epsilon_after(schedule.participations),
            "delta": plan.delta,
            "unit_of_privacy": UNIT,
            "assumptions": list(ASSUMPTIONS),
            "noise_multiplier": policy.noise_multiplier,
            "participations": schedule.participations,
            "min_separation": policy.min_separation,
            "bands": policy.bands,
            "record": asdict(record),
        },
    }


def _of_seed(seed: int, arms: Mapping[str, ArmResult]) -> dict[str, Any]:
    without, private = (arms[arm] for arm in ARMS)
    gain = _gain(without, "auc")
    best = max(look["auc"] or 0.0 for done, look in without.looks.items() if done)
    return {
        "seed": seed,
        "start": without.start,
        "without_noise": without.end,
        "private": private.end,
        "gain": gain,
        "kept": _share(_gain(private, "auc"), gain),
        "best_without_noise": best,
        "kept_of_best": _share(_gain(private, "auc"), best - (without.start["auc"] or 0.0)),
        "average_precision_kept": _share(
            _gain(private, "average_precision"), _gain(without, "average_precision")
        ),
        "looks": {arm: dict(arms[arm].looks) for arm in ARMS},
    }


def _share(part: float, whole: float) -> float:
    return part / whole if whole > 0 else 0.0


def _gain(result: ArmResult, metric: str) -> float:
    end, start = result.end[metric], result.start[metric]
    return (end or 0.0) - (start or 0.0)
