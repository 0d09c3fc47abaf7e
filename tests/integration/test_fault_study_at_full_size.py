"""The study of hostile fleets at its full size; it goes on in build/faults where it was stopped."""

import pytest

from simulations.fault_study import CLEAN, FAULTS, arms_of, run_study
from simulations.quality_fleet import StudyFleetPlan, prepared_fleet
from simulations.quality_study import QualityPlan
from tests.support.fault_figures import add_figures
from tests.support.figures import FOLDER, Figures

FIGURES = Figures("rounds")
NAMED = "10,000 devices, 200 rounds of 500"
SEEDS = (1, 2, 3)
CLEAN_ARM, MIXED, *SINGLE = arms_of("poisons")
MIXED_PAST_CLIPPING = arms_of("past")[1]
WITHIN_THE_DEFENCE = (*arms_of("faults"), MIXED, MIXED_PAST_CLIPPING)
LOST_AT_MOST = {FAULTS: 0.01, MIXED.name: 0.02, MIXED_PAST_CLIPPING.name: 0.02}
LABELS_ALONE = next(arm.name for arm in SINGLE if "label-flipped" in arm.name)


def of_the_study(arms, seeds):
    """Run arms of the study, or read what a run left, and record the figures."""
    folder = FOLDER.parent / "faults"
    fleet = prepared_fleet(FOLDER.parent / "quality" / "fleet-10000", StudyFleetPlan())
    summary = run_study(fleet, QualityPlan(), arms=arms, seeds=seeds, folder=folder)
    add_figures(FIGURES, summary, named=NAMED, targets=(0.99, 0.01, 0.02))
    return {arm["arm"]: arm for arm in summary["arms"]}


@pytest.mark.soak
def test_rounds_hold_under_faults_and_mixed_poison():
    found = of_the_study(WITHIN_THE_DEFENCE, SEEDS)

    assert set(found) == {CLEAN, *LOST_AT_MOST}
    for name, arm in found.items():
        assert arm["complete"] >= 0.99
        # The median of the starts: arms of one start that hardly differ lie up to .02 apart.
        assert arm["lost"] <= LOST_AT_MOST.get(name, 0.0)


@pytest.mark.soak
def test_single_poisons_are_told_and_flipped_labels_alone_are_beyond_the_defence():
    found = of_the_study((CLEAN_ARM, *SINGLE), SEEDS[:1])

    assert all(arm["complete"] >= 0.99 for arm in found.values())
    # A miss, told as one in the threat model: clipping sees no meaning. Whoever bounds it finds
    # this line and corrects the page.
    assert found[LABELS_ALONE]["lost"] > 0.02
