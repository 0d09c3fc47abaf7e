"""The demo from beginning to end: each step in its order, and the report that it leaves."""

from __future__ import annotations

import shutil
import tempfile
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING

from models.bundle import load_bundle
from models.inference import Predictor
from models.wire.envelope import SigningKey
from server.engine.proposal import keep_decision
from server.runs.replay_record import versions_here

from ..report_page import PAGE_FILE, write_page
from ..run_report import REPORT_FILE, RunReport, write_report
from ..run_report_parts import BundleInUse, BundleRole, FleetDescription
from . import scene as scenes
from .candidate import candidate_bundle, fitted_on_reference, through_the_gate, write_verified
from .chosen_devices import choose
from .comparison import calibration_bins, compare, model_of
from .device_stores import TrustedBundle
from .fleet_views import fleet_health, followed_device, life_of
from .messaging import require_parts, talk
from .noise_cost import noise_statement
from .output_folder import replacing
from .private_rounds import PRIVATE, WITHOUT_NOISE, run_rounds
from .real_cells import judge_on_cells
from .releases import register

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from datetime import datetime

    from models.bundle import Bundle
    from models.metrics import Quality
    from models.training.recipe import TrainedModel
    from server.engine.quality_gate import GateDecision

    from ..run_report_parts import RealCells
    from .chosen_devices import Cast
    from .messaging import Conversation
    from .plan import DemoPlan
    from .private_rounds import RoundsOutcome
    from .scene import Scene

BUNDLE_FILE = "candidate.zip"
HUB_FILE = "hub.db"
DEFAULT = "default_bundle"


@dataclass(frozen=True, slots=True)
class Learnt:
    """What the rounds and their judgement came to.

    Attributes:
        default: the bundle that ships with the package.
        candidate: the signed one of the private rounds.
        trusted: where the candidate is, and the test key that signed it.
        rounds: weights, curves and the report of the rounds.
        models: ours, by name.
        metrics: of all models on the judged fleet.
        gate: whether devices run the candidate.
    """

    default: Bundle
    candidate: Bundle
    trusted: TrustedBundle
    rounds: RoundsOutcome
    models: Mapping[str, TrainedModel]
    metrics: Mapping[str, Quality]
    gate: GateDecision

    @property
    def in_use(self) -> Bundle:
        """The bundle that devices run."""
        return self.candidate if self.gate.passed else self.default


def run_demo(
    plan: DemoPlan,
    *,
    out: Path,
    clock: Callable[[], datetime],
    elapsed_s: Callable[[], float],
    tell: Callable[[str], None],
) -> RunReport:
    """Run the whole demo and leave its folder.

    Args:
        plan: what decides it.
        out: folder of the run; an old run there is replaced once the new one is whole.
        clock: gives now, aware UTC.
        elapsed_s: gives the seconds since the run began, its start-up included.
        tell: takes a line for each step.

    Returns:
        What `report.json` holds.

    Raises:
        SimulationsError: a step failed; `out` is as it was before.
    """
    started_at = clock()
    with replacing(out) as folder, _scratch() as scratch:
        require_parts(scratch, plan.broker)
        default = load_bundle("default")
        cells = judge_on_cells(plan.cells, model_of(default), tell=tell)
        scene = scenes.make_scene(plan, tell=tell)
        learnt = learn(scene, plan, default=default, folder=folder, clock=clock, tell=tell)
        url = f"sqlite:///{folder / HUB_FILE}"
        register(
            url,
            [learnt.default, learnt.candidate] if learnt.gate.passed else [learnt.default],
            released=learnt.in_use,
            run=folder / PRIVATE,
            now=clock(),
        )
        cast = choose(scene.judged, Predictor(learnt.in_use))
        conversation = talk(
            scene.judged,
            cast,
            scratch=scratch,
            database_url=url,
            broker_kind=plan.broker,
            bundle=learnt.trusted if learnt.gate.passed else None,
            tell=tell,
        )
        tell("writing the report")
        report = put_together(
            plan,
            scene,
            learnt,
            cells=cells,
            cast=cast,
            conversation=conversation,
            started_at=started_at,
            seconds=elapsed_s(),
        )
        write_report(report, folder / REPORT_FILE)
        write_page(report, folder / PAGE_FILE)
    return report


def put_together(
    plan: DemoPlan,
    scene: Scene,
    learnt: Learnt,
    *,
    cells: RealCells,
    cast: Cast,
    conversation: Conversation,
    started_at: datetime,
    seconds: float,
) -> RunReport:
    """Put the report together from what each step came to.

    Args:
        plan: of the demo.
        scene: the three fleets.
        learnt: rounds, models, figures and gate.
        cells: the default bundle on real cells.
        cast: the six devices.
        conversation: between server and devices.
        started_at: aware, UTC.
        seconds: that the run took.
    """
    privacy = learnt.rounds.private_report["privacy"]
    end = scenes.RECIPE.start_at + timedelta(days=plan.days)
    predictor = Predictor(learnt.in_use)
    followed = followed_device(scene.judged, cast)
    return RunReport(
        started_at=started_at,
        seconds=round(seconds, 1),
        seed=plan.seed,
        versions=versions_here(),
        fleet=FleetDescription(
            description=scenes.DESCRIPTION.format(devices=plan.devices),
            days=plan.days,
            judged_devices=plan.judged_devices,
        ),
        devices=plan.devices,
        rounds=plan.rounds,
        epsilon_release=privacy["epsilon_release"],
        delta=privacy["delta"],
        epsilon_server=privacy["epsilon_server"],
        record_epsilon=privacy["record_epsilon"],
        record_delta=privacy["record_delta"],
        unit_of_privacy=privacy["unit_of_privacy"],
        record_unit=privacy["record_unit"],
        neighboring_relation=privacy["neighboring_relation"],
        assumptions=tuple(privacy["assumptions"]),
        noise_statement=_cost_of_noise(learnt, plan),
        metrics=learnt.metrics,
        learning_curve=learnt.rounds.curves,
        calibration=calibration_bins(scene.judged, learnt.models),
        bundle_in_use=_bundle_in_use(learnt),
        notices=conversation.notices,
        broker=conversation.broker,
        fleet_health=fleet_health(scene.training, predictor, now_s=int(end.timestamp())),
        life=life_of(scene.judged, predictor, position=followed),
        label_score=scene.training.label_score,
        real_cells=cells,
    )


def learn(
    scene: Scene,
    plan: DemoPlan,
    *,
    default: Bundle,
    folder: Path,
    clock: Callable[[], datetime],
    tell: Callable[[str], None],
) -> Learnt:
    """Run the rounds, judge all models, and lead the private one through the gate.

    Args:
        scene: the three fleets.
        plan: of the demo.
        default: the bundle from which the rounds start.
        folder: of the run.
        clock: gives now, aware UTC.
        tell: takes a line for each step.
    """
    start = model_of(default)
    rounds = run_rounds(
        scene, plan, start=start.parameters.flat(), folder=folder, clock=clock, tell=tell
    )
    tell("choosing calibration and threshold on the simulated reference fleet")
    models = {DEFAULT: start} | {
        name: fitted_on_reference(start, rounds.weights[name], scene.reference)
        for name in (PRIVATE, WITHOUT_NOISE)
    }
    metrics = compare(scene.judged, scene.training, models, seed=plan.seed, tell=tell)
    tell("building, signing and verifying the new bundle")
    key = SigningKey.generate()
    candidate = candidate_bundle(
        models[PRIVATE],
        default=default,
        reference=scene.reference,
        report=rounds.private_report,
        metrics=metrics,
        plan=plan,
        key=key,
    )
    path = folder / BUNDLE_FILE
    candidate = write_verified(candidate, path, key=key)
    gate = through_the_gate(default=start, candidate=models[PRIVATE], reference=scene.reference)
    keep_decision(folder / PRIVATE, gate, candidate=candidate, current=default, now=clock())
    tell(gate.why)
    public = key.verify_key
    trusted = TrustedBundle(path, {public.key_id: public.to_bytes()})
    return Learnt(default, candidate, trusted, rounds, models, metrics, gate)


def _cost_of_noise(learnt: Learnt, plan: DemoPlan) -> str:
    return noise_statement(
        default=learnt.metrics[DEFAULT],
        private=learnt.metrics[PRIVATE],
        without_noise=learnt.metrics[WITHOUT_NOISE],
        devices=plan.devices,
        noise_multiplier=learnt.rounds.private_report["privacy"]["noise_multiplier"],
        num_weights=len(learnt.rounds.weights[PRIVATE]),
    )


def _bundle_in_use(learnt: Learnt) -> BundleInUse:
    role = BundleRole.FEDERATED_PRIVATE if learnt.gate.passed else BundleRole.DEFAULT_BUNDLE
    return BundleInUse(version=learnt.in_use.version, role=role, why=learnt.gate.why)


@contextmanager
def _scratch() -> Iterator[Path]:
    """A folder for stores, keys and logs, gone afterwards."""
    folder = Path(tempfile.mkdtemp(prefix="fedcell-demo-"))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
