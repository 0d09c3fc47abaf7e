"""What a fleet that vanishes and lies does to federated rounds: one run with faults and without.

The real loop runs: invitations, messages of Flower, judgement of each reply, the durable steps of a
stream in a folder of its own, its correlated noise, the server's optimiser. Only the engine is left
out: nodes answer in this process (`in_process_grid`), one node a device. Noise comes from a seed
and is the same in every arm of a seed, so that arms differ by their faults alone; nothing made here
can be released.
"""

from __future__ import annotations

import hashlib
import json
import math
import tempfile
import threading
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from models.durable_file import write_durably
from models.training.local_epochs import new_flat_weights
from server.engine.flower_messages import ask_for_devices
from server.engine.over_invitation import invited_for
from server.engine.quality_looks import HeldOutPart
from server.engine.rounds import RoundsConfig
from server.flower_app import PlannedRun, carry_out
from server.runs.folder import RunFolder

from .backdoor_success import TriggeredPart
from .fleet_faults import POISONS, Fault, FaultPlan, Lies, Trigger
from .hostile_fleet import FleetAtWork, FleetGrid
from .quality_study import ASSUMPTIONS, UNIT, QualityPlan
from .seeded_streams import SeededKeys, SeededStream

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from privacy import StreamPolicy
    from server.engine.rounds import RoundRecord

    from .quality_fleet import StudyFleet

CLEAN: Final = "clean"
FAULTS: Final = "30 % dropout, 5 % hostile replies"
OVER_INVITED: Final = f"{FAULTS}, over-invited"
DEADLINE_S: Final = 3.0
"""Nodes have answered when it begins: only those that stay silent take a round to its end."""
LEAST_SHARE: Final = 0.5
"""Of the cohort: with fewer good replies a round is a step of noise alone, and marked so."""
NEAR_SHARE: Final = 0.9
"""Of the replies that an arm's faults leave on average: a least that rounds can miss."""
_NODES_DEADLINE_S: Final = 120.0

Metrics = dict[str, float | None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Arm:
    """One run of the study.

    Attributes:
        name: of the arm.
        faults: of its fleet; the seed is set by the run.
        devices_a_node: how many devices stand behind one node; where only devices lie, blocks give
            the same sums to the last bit in a third of the time.
        expected_dropout: share of the invited that the operator expects not to answer: so many more
            are invited, and the server's rate makes up for the greater divisor.
    """

    name: str
    faults: FaultPlan
    devices_a_node: int = 250
    expected_dropout: float = 0.0


def arms_of(kind: str) -> tuple[Arm, ...]:
    """Return the arms of one part of the study.

    Args:
        kind: `faults`, `poisons`, `past` (the same past clipping) or `backdoors`; each has the
            clean run first.

    Raises:
        ValueError: there is no such part.
    """
    if kind not in PARTS:
        raise ValueError(f"{kind!r} is none of {', '.join(PARTS)}")
    return (Arm(name=CLEAN, faults=FaultPlan()), *PARTS[kind])


def _poisoned(poisons: tuple[Fault, ...], lies: Lies) -> Arm:
    kinds = " and ".join(poison.replace("_", "-") for poison in poisons)
    return Arm(
        name=f"10 % {kinds}, {lies}",
        faults=FaultPlan(poisoned=0.1, poisons=poisons, lies=lies),
    )


def _backdoored(share: float, lies: Lies, trigger: Trigger) -> Arm:
    claim = "" if trigger.claims == "failing" else " that hides failures"
    return Arm(
        name=f"{share:.0%} backdoored{claim}, {lies}".replace("%", " %"),
        faults=FaultPlan(poisoned=share, poisons=(Fault.BACKDOORED,), lies=lies, trigger=trigger),
    )


_POISONS: Final = (POISONS, *((poison,) for poison in POISONS))
_SHARES: Final = (0.01, 0.05, 0.1)
_LOST_AND_HOSTILE: Final = FaultPlan(dropout=0.2, late=0.1, noticed=0.9, hostile_replies=0.05)
PARTS: Final[Mapping[str, tuple[Arm, ...]]] = {
    "faults": (
        Arm(name=FAULTS, faults=_LOST_AND_HOSTILE, devices_a_node=1),
        Arm(name=OVER_INVITED, faults=_LOST_AND_HOSTILE, devices_a_node=1, expected_dropout=0.3),
    ),
    "poisons": tuple(_poisoned(some, Lies.BEFORE_CLIPPING) for some in _POISONS),
    "backdoors": (
        *(_backdoored(share, Lies.BEFORE_CLIPPING, Trigger()) for share in _SHARES),
        *(_backdoored(share, Lies.PAST_CLIPPING, Trigger()) for share in _SHARES),
        _backdoored(0.1, Lies.BEFORE_CLIPPING, Trigger(claims="healthy")),
        _backdoored(0.1, Lies.PAST_CLIPPING, Trigger(claims="healthy")),
    ),
    "past": tuple(_poisoned(some, Lies.PAST_CLIPPING) for some in _POISONS),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class FaultResult:
    """What one arm of one seed gave.

    Attributes:
        seed: of start, cohorts, coins, noise and faults.
        arm: its name.
        looks: metrics on held-out devices by number of rounds done; 0 is the start.
        rounds: of the run.
        complete: rounds whose release holds good replies, at least the policy's least: half of the
            cohort.
        noise_only: rounds marked so.
        replied: median number of devices whose replies were good.
        refused: replies refused in all rounds, by reason.
        triggered: how often the trigger gets its way with the last weights.
        epsilon_release: of the run.
        seconds: that it took.
        near_least: a least close to what the arm's faults leave on average; 0 in results of before.
        reached_near_least: rounds with so many good replies; None in results of before.
    """

    seed: int
    arm: str
    looks: Mapping[int, Metrics]
    rounds: int
    complete: int
    noise_only: int
    replied: float
    refused: Mapping[str, int]
    triggered: Mapping[str, float]
    epsilon_release: float | None
    seconds: float
    near_least: int = 0
    reached_near_least: int | None = None

    @property
    def average_precision(self) -> float:
        """After the last round."""
        return self.looks[max(self.looks)]["average_precision"] or 0.0


class _PairedStream(SeededStream):
    """The same noise whatever the sums are, so that two arms differ by their faults alone."""

    def bind(self, index: int, digest: bytes) -> None:
        """Leave the noise of a step as the seed gives it."""


class _PairedKeys(SeededKeys):
    """Keys of streams whose noise does not depend on what they are added to; simulated only."""

    def noise(
        self, key: bytes, policy: StreamPolicy, *, next_index: int, size: int
    ) -> SeededStream:
        return _PairedStream.resumed(key, policy, next_index, size)


@dataclass(slots=True)
class HeldOutLooks:
    """Looks at held-out devices, made once for all arms.

    Attributes:
        fleet: whose held-out devices they are.
    """

    fleet: StudyFleet
    part: HeldOutPart = field(init=False)
    triggered: TriggeredPart = field(init=False)

    def __post_init__(self) -> None:
        """Read the rows."""
        self.part = HeldOutPart(self.fleet.held_out, every_days=1)
        self.triggered = TriggeredPart(self.fleet.held_out, Trigger())


def run_arm(
    fleet: StudyFleet,
    looks: HeldOutLooks,
    plan: QualityPlan,
    arm: Arm,
    *,
    seed: int,
    on_round: Callable[[], None] = lambda: None,
) -> FaultResult:
    """Run all rounds of one arm.

    Args:
        fleet: whose devices train.
        looks: at devices that never train.
        plan: rounds and privacy.
        arm: with its faults.
        seed: of start, cohorts, coins, noise and faults.
        on_round: told of each round done.
    """
    faults = replace(arm.faults, seed=seed)
    plan = planned_for(plan, arm)
    config = config_of(plan, seed=seed)
    started, stop = datetime.now(UTC), threading.Event()
    records: list[RoundRecord] = []

    def keep(record: RoundRecord) -> None:
        records.append(record)
        on_round()

    with (
        tempfile.TemporaryDirectory(prefix="fedcell-faults-") as folder,
        FleetGrid(FleetAtWork(fleet, faults, seed), devices_a_node=arm.devices_a_node) as grid,
    ):
        run = PlannedRun(
            config=config,
            folder=RunFolder(Path(folder) / "run"),
            start=new_flat_weights(seed=seed),
            keys=_PairedKeys(seed),
            evaluate=looks.part.metrics,
            on_round=keep,
        )
        roster = ask_for_devices(
            grid, num_nodes=len(grid.get_node_ids()), deadline_s=_NODES_DEADLINE_S, stop=stop
        )
        carry_out(run, grid, roster=roster, stop=stop, clock=lambda: datetime.now(UTC))
        weights, start = run.result(), run.report["start_metrics"]
    seconds = (datetime.now(UTC) - started).total_seconds()
    near_least = math.floor(NEAR_SHARE * expected_replies(faults, cohort_size=plan.cohort_size))
    return _result(
        records,
        {0: start},
        seed=seed,
        arm=arm.name,
        triggered=looks.triggered.success(weights),
        seconds=seconds,
        near_least=near_least,
    )


def expected_replies(faults: FaultPlan, *, cohort_size: int) -> float:
    """Return how many good replies a round has on average, were each lie found and refused."""
    answering = 1.0 - faults.dropout - faults.late
    return cohort_size * answering * (1.0 - faults.hostile_replies)


def planned_for(plan: QualityPlan, arm: Arm) -> QualityPlan:
    """Return the plan of a study as an operator who expects an arm's dropout sets it."""
    answering = 1.0 - arm.expected_dropout
    return replace(
        plan,
        cohort_size=invited_for(plan.cohort_size, dropout=arm.expected_dropout),
        server=replace(plan.server, learning_rate=plan.server.learning_rate / answering),
    )


def config_of(plan: QualityPlan, *, seed: int) -> RoundsConfig:
    """Return the configuration of a run by the plan of a study."""
    return RoundsConfig(
        stream=f"faults-{seed}",
        num_rounds=plan.num_rounds,
        cohort_size=plan.cohort_size,
        clipping_norm=plan.clipping_norm,
        epsilon=plan.epsilon,
        delta=plan.delta,
        recipe=plan.local,
        server=plan.server,
        deadline_s=DEADLINE_S,
        min_replies=max(1, round(plan.cohort_size * LEAST_SHARE)),
        evaluate_every=plan.look_every,
    )


def _result(
    records: Sequence[RoundRecord],
    looks: dict[int, Metrics],
    *,
    seed: int,
    arm: str,
    triggered: Mapping[str, float],
    seconds: float,
    near_least: int,
) -> FaultResult:
    refused: dict[str, int] = {}
    for record in records:
        for reason, count in record.refused.items():
            refused[reason] = refused.get(reason, 0) + count
    looks |= {r.index + 1: r.metrics for r in records if r.metrics is not None}
    noise_only = sum(record.noise_only for record in records)
    return FaultResult(
        seed=seed,
        arm=arm,
        looks=looks,
        rounds=len(records),
        complete=len(records) - noise_only,
        noise_only=noise_only,
        replied=float(np.median([record.replied for record in records])),
        refused=refused,
        triggered=triggered,
        epsilon_release=records[-1].epsilon_release,
        seconds=seconds,
        near_least=near_least,
        reached_near_least=sum(record.replied >= near_least for record in records),
    )


def run_study(
    fleet: StudyFleet,
    plan: QualityPlan,
    *,
    arms: Sequence[Arm],
    seeds: Iterable[int],
    folder: Path,
    on_arm: Callable[[int, str], None] = lambda _seed, _arm: None,
    on_round: Callable[[], None] = lambda: None,
) -> dict[str, Any]:
    """Run the arms of every seed, except those that the folder holds already.

    Args:
        fleet: whose devices train.
        plan: rounds and privacy.
        arms: the clean one first.
        seeds: one start each.
        folder: one file for each arm of each seed and plan; a study that was stopped goes on.
        on_arm: told of each arm before it runs or is read.
        on_round: told of each round done.

    Returns:
        The summary, as a JSON object.
    """
    folder.mkdir(parents=True, exist_ok=True)
    looks: HeldOutLooks | None = None
    results: list[FaultResult] = []
    for seed in seeds:
        for arm in arms:
            on_arm(seed, arm.name)
            path = folder / f"{arm_name(fleet, plan, arm)}-seed-{seed}.json"
            if not path.exists():
                looks = looks or HeldOutLooks(fleet)
                result = run_arm(fleet, looks, plan, arm, seed=seed, on_round=on_round)
                write_durably(path, json.dumps(asdict(result)).encode())
            results.append(_read(path))
    return summary_of(results, fleet=fleet, plan=plan)


def arm_name(fleet: StudyFleet, plan: QualityPlan, arm: Arm) -> str:
    """Name a fleet, a plan and an arm by their content, so that results of others are not taken."""
    said = asdict(arm)
    if not arm.expected_dropout:
        # Results of before it was there keep their names.
        del said["expected_dropout"]
    content = json.dumps([fleet.plan.to_json(), asdict(plan), said], sort_keys=True)
    return hashlib.sha256(content.encode()).hexdigest()[:16]


def _read(path: Path) -> FaultResult:
    value = json.loads(path.read_text(encoding="utf-8"))
    value["looks"] = {int(done): metrics for done, metrics in value["looks"].items()}
    return FaultResult(**value)


def summary_of(
    results: Iterable[FaultResult], *, fleet: StudyFleet, plan: QualityPlan
) -> dict[str, Any]:
    """Sum up the arms over the seeds, each against the clean run of its seed."""
    by_arm: dict[str, list[FaultResult]] = {}
    for result in results:
        by_arm.setdefault(result.arm, []).append(result)
    clean = {result.seed: result for result in by_arm[CLEAN]}
    schedule = plan.schedule(len(fleet.device_ids))
    policy = plan.policy(schedule, stream="faults").privacy
    return {
        "fleet": fleet.plan.to_json(),
        "plan": asdict(plan),
        "arms": [_of_arm(name, found, clean) for name, found in by_arm.items()],
        "privacy": {
            "epsilon_release": policy.epsilon_after(schedule.participations),
            "delta": plan.delta,
            "unit_of_privacy": UNIT,
            "assumptions": list(ASSUMPTIONS),
            "noise_multiplier": policy.noise_multiplier,
            "participations": schedule.participations,
            "min_separation": policy.min_separation,
        },
    }


def _share_reached(results: Sequence[FaultResult]) -> float | None:
    """Return the share of rounds that reached the near least; None where nobody counted them."""
    counted = [
        (r.reached_near_least, r.rounds) for r in results if r.reached_near_least is not None
    ]
    if not counted:
        return None
    return sum(reached for reached, _ in counted) / sum(rounds for _, rounds in counted)


def _of_arm(
    name: str, results: Sequence[FaultResult], clean: Mapping[int, FaultResult]
) -> dict[str, Any]:
    lost = [clean[result.seed].average_precision - result.average_precision for result in results]
    return {
        "arm": name,
        "seeds": [asdict(result) for result in results],
        "average_precision": median(result.average_precision for result in results),
        "lost": median(lost),
        "lost_by_seed": lost,
        "complete": sum(r.complete for r in results) / sum(r.rounds for r in results),
        "near_least": results[0].near_least,
        "reached_near_least": _share_reached(results),
        "replied": median(result.replied for result in results),
        "refused": {
            reason: sum(result.refused.get(reason, 0) for result in results)
            for reason in sorted({reason for result in results for reason in result.refused})
        },
        "triggered": {
            key: median(result.triggered[key] for result in results) for key in results[0].triggered
        },
    }
