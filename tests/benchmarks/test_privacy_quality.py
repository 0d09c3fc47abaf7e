"""What does the noise of releases cost, on a fleet small enough for a minute?

A tenth of the devices and of the rounds of the study that `fedcell simulate quality` makes: σ and
participations are the same, but noise weighs as much more as the cohort is larger for its fleet and
the rounds are fewer. Its figures stand for themselves; the study's are made by the command.
"""

from __future__ import annotations

from simulations.quality_fleet import StudyFleetPlan, prepared_fleet
from simulations.quality_study import QualityPlan, run_study
from tests.support.figures import Figures
from tests.support.quality_figures import add_figures

FIGURES = Figures("privacy")
DEVICES, COHORT, ROUNDS = 1_000, 500, 20
SEEDS = (1, 2)


def test_release_noise_over_few_devices_and_rounds(tmp_path):
    fleet = prepared_fleet(tmp_path / "fleet", StudyFleetPlan(num_devices=DEVICES, num_days=480))
    plan = QualityPlan(cohort_size=COHORT, num_rounds=ROUNDS, look_every=ROUNDS)
    summary = run_study(fleet, plan, seeds=SEEDS, folder=tmp_path)
    add_figures(
        FIGURES,
        summary,
        named=f"{DEVICES:,} devices, {ROUNDS} rounds of {COHORT}",
        targets=(None, None),
    )
    assert summary["privacy"]["participations"] == 10
    assert all(seed["gain"] > 0 for seed in summary["seeds"])
