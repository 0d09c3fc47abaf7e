"""The study of hostile fleets at its full size; it goes on in build/faults where it was stopped."""

import pytest

from simulations.fault_study import FAULTS, arms_of, run_study
from simulations.quality_fleet import StudyFleetPlan, prepared_fleet
from simulations.quality_study import QualityPlan
from tests.support.fault_figures import add_figures
from tests.support.figures import FOLDER, Figures

FIGURES = Figures("rounds")
SEEDS = (1, 2, 3)
BEYOND_THE_DEFENCE = {"10 % label-flipped, before clipping"}
"""Measured against the same target, and told in the threat model: clipping sees no meaning."""


@pytest.mark.soak
def test_rounds_hold_under_faults_and_poison():
    folder = FOLDER.parent / "faults"
    fleet = prepared_fleet(FOLDER.parent / "quality" / "fleet-10000", StudyFleetPlan())
    arms = (*arms_of("faults"), *arms_of("poisons")[1:])
    summary = run_study(fleet, QualityPlan(), arms=arms, seeds=SEEDS, folder=folder)
    named = "10,000 devices, 200 rounds of 500"
    add_figures(FIGURES, summary, named=named, targets=(0.99, 0.01, 0.02))
    for arm in summary["arms"]:
        assert arm["complete"] >= 0.99
        if arm["arm"] not in BEYOND_THE_DEFENCE:
            assert arm["lost"] <= (0.01 if arm["arm"] == FAULTS else 0.02)
