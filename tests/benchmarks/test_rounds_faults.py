"""What does a fleet that vanishes and lies do to rounds, on a fleet small enough for a minute?

A tenth of the devices and of the rounds of the study that `fedcell simulate faults` makes, and its
chief arms alone. Noise weighs more where the fleet is small and the rounds are few, so that its
figures stand for themselves; the study's are made by the command and by `make soak`.
"""

from __future__ import annotations

from simulations.fault_study import CLEAN, FAULTS, arms_of, run_study
from simulations.quality_fleet import StudyFleetPlan, prepared_fleet
from simulations.quality_study import QualityPlan
from tests.support.fault_figures import add_figures
from tests.support.figures import Figures

FIGURES = Figures("rounds")
DEVICES, COHORT, ROUNDS = 1_000, 500, 20


def test_rounds_over_a_small_hostile_fleet(tmp_path):
    fleet = prepared_fleet(tmp_path / "fleet", StudyFleetPlan(num_devices=DEVICES, num_days=480))
    plan = QualityPlan(cohort_size=COHORT, num_rounds=ROUNDS, look_every=ROUNDS)
    arms = (*arms_of("faults")[:2], arms_of("poisons")[1], arms_of("backdoors")[3])
    summary = run_study(fleet, plan, arms=arms, seeds=(1,), folder=tmp_path)
    add_figures(
        FIGURES,
        summary,
        named=f"small: {DEVICES:,} devices, {ROUNDS} rounds of {COHORT}",
        targets=(0.99, None, None),
    )
    by_name = {arm["arm"]: arm for arm in summary["arms"]}
    assert list(by_name)[:2] == [CLEAN, FAULTS]
    assert all(arm["complete"] >= 0.99 for arm in by_name.values())
    assert by_name[FAULTS]["replied"] < 0.75 * COHORT
    assert {"failed", "not_finite", "wrong_step"} <= set(by_name[FAULTS]["refused"])
