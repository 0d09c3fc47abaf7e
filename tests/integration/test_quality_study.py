"""The quality study at its full size; it goes on in build/quality where it was stopped."""

from statistics import median

import pytest

from simulations.quality_fleet import StudyFleetPlan, prepared_fleet
from simulations.quality_study import QualityPlan, run_study
from tests.support.figures import FOLDER, Figures
from tests.support.quality_figures import add_figures

FIGURES = Figures("privacy")
SEEDS = range(1, 6)


@pytest.mark.soak
def test_private_run_keeps_nearly_all_that_a_noiseless_one_gains():
    folder = FOLDER.parent / "quality"
    fleet = prepared_fleet(folder / "fleet-10000", StudyFleetPlan())
    summary = run_study(fleet, QualityPlan(), seeds=SEEDS, folder=folder)
    add_figures(FIGURES, summary, named="10,000 devices, 200 rounds of 500", targets=(0.10, 0.95))
    privacy = summary["privacy"]
    assert (privacy["participations"], privacy["min_separation"]) == (10, 20)
    assert privacy["noise_multiplier"] == pytest.approx(8.39, abs=0.005)
    assert min(seed["gain"] for seed in summary["seeds"]) >= 0.10
    for share in ("kept", "kept_of_best", "average_precision_kept"):
        assert median(seed[share] for seed in summary["seeds"]) >= 0.95
