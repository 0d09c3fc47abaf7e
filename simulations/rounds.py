"""Federated rounds over a fleet dataset, in Flower's simulation engine, up to a bundle."""

from __future__ import annotations

import secrets
import shlex
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from models.bundle import Bundle, load_bundle, write_bundle
from models.metrics import Windows, quality
from models.training.export_onnx import parameters_of, read_parameters
from models.training.local_epochs import new_flat_weights
from models.training.network import HazardNetwork
from models.training.recipe import soon_labels
from privacy import OperatingSystemNoise
from server.engine.cohorts import num_within_owner_cap
from server.engine.quality_looks import looks_at
from server.engine.rounds import DEVICES_PER_OWNER, RoundsConfig
from server.flower_app import PlannedRun
from server.plans.plan_file import (
    config_under,
    require_fleet,
    require_same_plan,
    stream_name,
)
from server.runs.desk import Watching
from server.runs.federated_bundle import federated_bundle, fitted
from server.runs.folder import RunFolder
from server.runs.outcome import outcome_of
from server.runs.replay_record import folder_digest
from server.runs.run_files import BUNDLE_FILE
from server.streams.stream_terms import OperatingSystemKeys

from .federation import run_planned
from .fleet_rows import FleetRows, fleet_rows
from .model_sources import REFERENCE_FLEET
from .model_sources import fleet_rows as source_rows
from .seeded_noise import SeededNoise
from .seeded_streams import SeededKeys

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from datetime import datetime
    from pathlib import Path

    from numpy.typing import NDArray

    from models.metrics import Quality
    from models.parameters import Parameters
    from models.training.recipe import TrainedModel
    from models.training_rows import TrainingRows
    from models.wire.rounds import LocalRecipe
    from privacy import StreamPolicy
    from server.engine.group_rule import GroupRuleName
    from server.engine.optimizer_gain import OptimizerGain
    from server.engine.round_keeper import Metrics
    from server.engine.rounds import NoiseName, RoundRecord
    from server.engine.server_optimizer import ServerRecipe
    from server.streams.stream_key import OperatorKey

DEADLINE_S = 600.0
"""How long a round waits for replies unless somebody says otherwise."""
LOG_FILE = "flower.log"
RANDOM_WEIGHTS = "none"
JUDGED_CENTRALLY = (
    "Figures come from devices that never trained, looked at centrally and without noise."
)


@dataclass(frozen=True, slots=True, kw_only=True)
class RoundsPlan:
    """What decides a run of rounds over a fleet dataset.

    Attributes:
        num_rounds: T.
        cohort_size: n, devices invited to each round; None invites all.
        epsilon: ε_release; None runs without any noise, for comparison.
        delta: its δ.
        clipping_norm: C, or C_0 where it adapts.
        recipe: how devices train.
        server: how released updates move the weights.
        seed: of devices' randomness and noise; None draws from the operating system. A seeded run
            is stamped `simulated` and cannot be released.
        evaluate_every: rounds between two looks at the held-out part.
        noise: correlated between steps, or independent, for comparison only.
        max_participations: k for life; None takes what the schedule asks of a device.
        max_devices_per_owner: most devices of one owner, where owners are known.
        target_quantile: γ of a clipping norm that adapts; None keeps C.
        min_replies: least devices that must answer a round, else it is noise alone.
        group_rule: median or trimmed mean over groups of nodes, for comparison only.
        num_groups: G, where there is a rule.
        patience: looks at the reference fleet without gain that end the run; 0 never ends it.
        deadline_s: how long a round waits for replies.
        policy: of a plan that is carried out, whose constants stand above; None works σ, k, b and
            p out from them.
    """

    num_rounds: int
    cohort_size: int | None
    epsilon: float | None
    delta: float
    clipping_norm: float
    recipe: LocalRecipe
    server: ServerRecipe
    seed: int | None = None
    evaluate_every: int = 1
    noise: NoiseName = "correlated"
    max_participations: int | None = None
    max_devices_per_owner: int = DEVICES_PER_OWNER
    target_quantile: float | None = None
    min_replies: int = 1
    patience: int = 0
    deadline_s: float = DEADLINE_S
    group_rule: GroupRuleName = "none"
    num_groups: int = 8
    policy: StreamPolicy | None = None

    @property
    def is_releasable(self) -> bool:
        """Whether its model may ever be released: real and correlated noise."""
        return self.epsilon is not None and self.seed is None and self.noise == "correlated"

    def config(self, population_size: int) -> RoundsConfig:
        """Return the configuration over so many enrolled devices.

        A seeded run bears the seed in its stream's name, which decides the invitations, so that it
        repeats as a whole.

        Raises:
            ValueError: a number is out of bounds.
            PlanError: too few devices are enrolled for the plan.
        """
        name = f"run-{secrets.token_hex(8)}" if self.seed is None else f"simulated-{self.seed}"
        config = RoundsConfig(
            stream=name,
            num_rounds=self.num_rounds,
            cohort_size=self.cohort_size or population_size,
            clipping_norm=self.clipping_norm,
            target_quantile=self.target_quantile,
            epsilon=self.epsilon,
            delta=self.delta,
            recipe=self.recipe,
            server=self.server,
            evaluate_every=self.evaluate_every,
            noise=self.noise,
            max_participations=self.max_participations,
            max_devices_per_owner=self.max_devices_per_owner,
            min_replies=self.min_replies,
            patience=self.patience,
            deadline_s=self.deadline_s,
            group_rule=self.group_rule,
            num_groups=self.num_groups,
        )
        if self.policy is not None:
            require_fleet(self.policy, population_size)
            return config_under(self.policy, config)
        config.policy(config.schedule(population_size))
        return config


@dataclass(frozen=True, slots=True, kw_only=True)
class KeptAt:
    """Where a run counts devices, and who may read its secrets.

    Attributes:
        privacy_home: folder that counts devices over all runs; None makes the run's folder one.
        operator: seals the stream's key and sums.
        owners: of devices, as far as they are known.
        is_resumed: whether the run's folder holds its first part.
        command: how the run is started, kept for whoever goes on with it.
    """

    privacy_home: Path | None = None
    operator: OperatorKey | None = None
    owners: Mapping[str, str] = field(default_factory=dict)
    is_resumed: bool = False
    command: Mapping[str, Any] | None = None


@dataclass(frozen=True, slots=True)
class RunOutcome:
    """What a run leaves.

    Attributes:
        report: what stands in `run.json`.
        bundle: the exported bundle, unsigned.
        parameters: the weights after the last round.
    """

    report: Mapping[str, Any]
    bundle: Bundle
    parameters: Parameters


def run_rounds(
    fleet: Path | FleetRows,
    out: Path,
    plan: RoundsPlan,
    *,
    clock: Callable[[], datetime],
    kept: KeptAt | None = None,
    start: Bundle | None = None,
    reference: TrainingRows | None = None,
    on_start: Callable[[Metrics | None, float], None] | None = None,
    on_gain: Callable[[OptimizerGain], None] | None = None,
    on_round: Callable[[RoundRecord], None] | None = None,
    watching: Watching | None = None,
    num_workers: int | None = None,
) -> RunOutcome:
    """Run rounds, and write ledger, checkpoint, weights, report and bundle into a folder.

    A fifth of the devices never trains; the curve and the figures on the card come from them.

    Args:
        fleet: folder of a fleet dataset with outcomes, or its rows.
        out: new folder of the run.
        plan: rounds and privacy.
        clock: gives now, aware UTC.
        kept: privacy home, seal and owners; None keeps all in the run's folder.
        start: bundle whose weights the rounds start from; None starts from random weights.
        reference: rows of simulated devices, for calibration, threshold and surrogate tree; None
            simulates `REFERENCE_FLEET`.
        on_start: told the metrics of the starting weights and σ.
        on_gain: told what correlated noise gains under the server optimiser.
        on_round: told of each round.
        watching: how the run can be watched; None by its folder alone.
        num_workers: processes that train; None takes one a core.

    Raises:
        DatasetError, FleetRowsError: the fleet cannot be used; nothing was written.
        RunFolderError: the folder already holds a run, or one that began over another fleet.
        EngineError, RoundsError: the rounds could not go on; what was released is in the ledger.
    """
    rows = fleet if isinstance(fleet, FleetRows) else fleet_rows(fleet)
    parameters = starting_parameters(start, seed=plan.seed)
    run = _planned(plan, rows, out, kept=kept or KeptAt(), start=parameters.flat())
    run.facts = {
        "seed": plan.seed,
        "fleet_sha256": None if isinstance(fleet, FleetRows) else folder_digest(fleet),
        "started_from": RANDOM_WEIGHTS if start is None else start.version,
    }
    run.folder.require_facts(run.facts)
    # A run that goes on has the patience that it began with.
    if reference is None and run.config.patience:
        reference = source_rows(REFERENCE_FLEET)
    run.evaluate = looks_at(rows.held_out, reference=reference if run.config.patience else None)
    run.on_start, run.on_gain, run.on_round = on_start, on_gain, on_round
    run.watching = replace(
        watching or Watching(), go_on=f"fedcell rounds resume {shlex.quote(str(out.resolve()))}"
    )
    run_planned(
        [run], rows, seed=plan.seed, clock=clock, log_file=out / LOG_FILE, num_workers=num_workers
    )
    trained = parameters.with_flat(run.result())
    bundle = _bundle(
        trained,
        reference=source_rows(REFERENCE_FLEET) if reference is None else reference,
        held_out=rows.held_out,
        start=start,
        report=run.report,
    )
    write_bundle(bundle, out / BUNDLE_FILE)
    return RunOutcome(run.report, bundle, trained)


def _planned(
    plan: RoundsPlan, rows: FleetRows, out: Path, *, kept: KeptAt, start: NDArray[np.float32]
) -> PlannedRun:
    if kept.privacy_home is not None and not plan.is_releasable:
        raise ValueError(
            "privacy_home must be left out for a comparison or a simulated run: nothing of it is "
            "ever released, so nothing of it may count for life"
        )
    population_size = num_within_owner_cap(
        rows.device_ids, owners=kept.owners, max_devices_per_owner=plan.max_devices_per_owner
    )
    config = plan.config(population_size)
    folder = RunFolder(
        out, home=kept.privacy_home, is_resumed=kept.is_resumed, command=kept.command
    )
    if folder.is_resumed:
        config = folder.config()
        if plan.policy is not None:
            require_same_plan(plan.policy, folder.terms().policy)
    elif plan.policy is not None:
        config = replace(config, stream=stream_name(plan.policy, folder.home))
    return PlannedRun(
        config=config,
        folder=folder,
        start=start,
        source=OperatingSystemNoise()
        if plan.seed is None
        else SeededNoise(plan.seed, "release", config.stream),
        keys=OperatingSystemKeys() if plan.seed is None else SeededKeys(plan.seed),
        operator=kept.operator,
        owners=kept.owners,
        plan=plan.policy,
        is_resumed=folder.is_resumed,
    )


def starting_bundle(
    source: str, *, trusted_keys: Mapping[str, bytes], allow_unsigned: bool = False
) -> Bundle | None:
    """Load the bundle that rounds start from; None for `none`, random weights.

    Raises:
        BundleError: the bundle is refused.
    """
    if source == RANDOM_WEIGHTS:
        return None
    return load_bundle(source, trusted_keys=trusted_keys, allow_unsigned=allow_unsigned)


def starting_parameters(start: Bundle | None, *, seed: int | None) -> Parameters:
    """Return the weights of a bundle, or random ones that a seed repeats."""
    if start is not None:
        return read_parameters(start.model_bytes)
    weights = new_flat_weights(seed=secrets.randbits(32) if seed is None else seed)
    return parameters_of(HazardNetwork()).with_flat(weights)


def _bundle(
    parameters: Parameters,
    *,
    reference: TrainingRows,
    held_out: TrainingRows,
    start: Bundle | None,
    report: Mapping[str, Any],
) -> Bundle:
    model = fitted(parameters, reference)
    schedule = report["schedule"]
    rounds, devices = outcome_of(report)["leaves_round"], schedule["population_size"]
    judged = {"rounds": _judged(model, held_out)} if len(held_out) else {}
    return federated_bundle(
        model,
        reference,
        title="fedcell battery model after federated rounds",
        trained_on=(
            f"starts from {'random weights' if start is None else start.version}",
            f"{rounds} federated rounds over {devices:,} devices of a fleet dataset",
        ),
        metrics={"Devices that never trained": judged} if judged else {},
        limits=(JUDGED_CENTRALLY,) if judged else (),
        report=report,
        explanation_reference=None if start is None else start.explanation_reference,
    )


def _judged(model: TrainedModel, rows: TrainingRows) -> Quality:
    label, known = soon_labels(rows)
    windows = Windows(rows.device, label, known, days_left=np.full(len(rows), np.nan))
    return quality(windows, probability=model.probability(rows.features), threshold=model.threshold)
