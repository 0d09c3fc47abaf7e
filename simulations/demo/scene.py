"""The scene: three simulated fleets of one kind, which the default bundle has not seen.

One trains. One never trains: models are judged on it, and the six agents are some of its devices.
One is the operator's reference, on which calibration, threshold and gate are decided, so that no
device's privacy is spent on them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from models.evaluation import device_windows
from models.featurize import featurize
from models.labels import label_packs
from models.telemetry import CAUSES
from models.training_rows import first_packs, training_rows

from ..answers import owner_answers
from ..censoring import FAILED
from ..errors import SimulationsError
from ..fleet import simulate_fleet
from ..recipe import FleetRecipe
from ..run_report_parts import CauseFound, LabelScore

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from models.featurize import FeatureTable
    from models.metrics import Windows
    from models.training_rows import PackOutcomes, TrainingRows

    from ..fleet import SimulatedFleet
    from .plan import DemoPlan

RECIPE = FleetRecipe.of(
    {
        "climate_mix": {"hot-arid": 0.6, "tropical": 0.4},
        "warming_c": 4.0,
        "bad_lot_share": 0.25,
        "resistance_prone_share": 0.4,
        "gauge_noise": 0.03,
        "resistance_noise": 0.08,
    }
)
"""Hot places, a bad lot, ageing contacts and poor gauges: each is rarer where the default bundle
learnt."""
DESCRIPTION = (
    "{devices:,} devices in hot-arid and tropical places, another 4 °C warmer, with every fourth "
    "battery from a bad lot, 40 % with contacts that age early, and gauges whose capacities "
    "scatter by 3 %; the default bundle learnt from milder fleets with better gauges"
)


class SceneError(SimulationsError):
    """The simulated fleets hold too little to show; nothing was written."""

    exit_code = 2


@dataclass(frozen=True, slots=True)
class TrainingFleet:
    """The fleet of the rounds.

    Attributes:
        fleet: as simulated.
        rows: what its devices train on: labels by rule, on their own readings.
        label_score: these labels against the truth.
    """

    fleet: SimulatedFleet
    rows: TrainingRows
    label_score: LabelScore

    @property
    def device_ids(self) -> tuple[str, ...]:
        """Identifiers of all devices, those without enough rows too."""
        return self.fleet.telemetry.device_ids


@dataclass(frozen=True, slots=True)
class JudgedFleet:
    """A fleet that never trains, with the truth about it.

    Attributes:
        fleet: as simulated.
        table: features of every device and midnight.
        judged: int, rows of `table` that can be predicted, of the first packs.
        windows: what is known of the 30 days after each of `judged`.
        rows: the same moments as rows to learn from, with the true outcomes.
    """

    fleet: SimulatedFleet
    table: FeatureTable
    judged: NDArray[np.intp]
    windows: Windows
    rows: TrainingRows

    @property
    def features(self) -> NDArray[np.float32]:
        """Features of the judged rows, shape (n, n_features)."""
        return self.table.features[self.judged]


@dataclass(frozen=True, slots=True)
class Scene:
    """Everything that is simulated before the story begins."""

    training: TrainingFleet
    judged: JudgedFleet
    reference: JudgedFleet


def make_scene(plan: DemoPlan, *, tell: Callable[[str], None]) -> Scene:
    """Simulate the three fleets.

    Args:
        plan: sizes and seed.
        tell: takes a line for each step.

    Raises:
        SceneError: no device has enough history to train, or nothing fails.
    """
    tell(f"simulating {plan.devices:,} devices over {plan.days} days")
    training = training_fleet(plan.devices, days=plan.days, seed=plan.seed)
    others = plan.judged_devices, plan.reference_devices
    tell(f"simulating {others[0]:,} devices to judge models on, and {others[1]:,} for reference")
    judged = judged_fleet(plan.judged_devices, days=plan.days, seed=plan.seed + 1)
    reference = judged_fleet(plan.reference_devices, days=plan.days, seed=plan.seed + 2)
    for name, fleet in (("judged", judged), ("reference", reference)):
        if not fleet.windows.label[fleet.windows.known].any():
            raise SceneError(f"no device of the {name} fleet fails; use more devices or days")
    if len(training.rows) == 0:
        raise SceneError("no device has rows enough to train; use more devices or days")
    return Scene(training, judged, reference)


def training_fleet(num_devices: int, *, days: int, seed: int) -> TrainingFleet:
    """Simulate the fleet of the rounds and label it as its devices would."""
    fleet = simulate_fleet(num_devices=num_devices, num_days=days, seed=seed, recipe=RECIPE)
    answers = owner_answers(fleet.truth, seed=seed, recipe=RECIPE)
    packs = label_packs(fleet.telemetry, fleet.profiles, answers=answers)
    rows = training_rows(featurize(fleet.telemetry, fleet.profiles), packs)
    return TrainingFleet(fleet, rows, score_labels(fleet, packs))


def judged_fleet(num_devices: int, *, days: int, seed: int) -> JudgedFleet:
    """Simulate a fleet that never trains."""
    fleet = simulate_fleet(num_devices=num_devices, num_days=days, seed=seed, recipe=RECIPE)
    table = featurize(fleet.telemetry, fleet.profiles)
    judged = np.flatnonzero(table.is_ok() & (table.pack == 0))
    windows = device_windows(table.device[judged], table.as_of_s[judged], fleet.outcomes)
    rows = training_rows(table, first_packs(fleet.outcomes), max_rows=None, least_rows=1)
    return JudgedFleet(fleet, table, judged, windows, rows)


def score_labels(fleet: SimulatedFleet, packs: PackOutcomes) -> LabelScore:
    """Hold the first packs' labels against what became of them.

    Args:
        fleet: with its truth.
        packs: labels by rule and by the owners' answers.
    """
    truth = fleet.truth.first_packs
    first = packs.pack == 0
    labelled = np.zeros(len(fleet.profiles), bool)
    labelled[packs.device[first]] = np.isfinite(packs.failed_at_s[first])
    failed = truth.ending == FAILED
    by_cause = {
        name: CauseFound(
            found=int((labelled & failed & (truth.cause == index)).sum()),
            total=int((failed & (truth.cause == index)).sum()),
        )
        for index, name in enumerate(CAUSES)
    }
    return LabelScore(by_cause=by_cause, false_labels=int((labelled & ~failed).sum()))
