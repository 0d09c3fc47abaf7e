"""What a quality study says of both arms: shares against the best noiseless look, and in words."""

from types import SimpleNamespace

import pytest

from simulations.commands.quality import summary_lines
from simulations.quality_fleet import StudyFleetPlan
from simulations.quality_study import ARMS, ArmResult, QualityPlan, summary_of
from tests.support.quality_figures import add_figures

pytestmark = pytest.mark.slow


def looks(*values):
    names = (0, 100, 200)
    return {
        done: {"auc": auc, "average_precision": precision}
        for done, (auc, precision) in zip(names, values, strict=True)
    }


@pytest.fixture(scope="module")
def summary():
    start = (0.5, 0.02)
    by_seed = {
        1: (looks(start, (0.9, 0.3), (0.8, 0.22)), looks(start, (0.6, 0.1), (0.82, 0.2))),
        2: (looks(start, (0.7, 0.1), (0.8, 0.22)), looks(start, (0.6, 0.1), (0.74, 0.12))),
    }
    results = [
        ArmResult(seed=seed, arm=arm, looks=seen)
        for seed, arms in by_seed.items()
        for arm, seen in zip(ARMS, arms, strict=True)
    ]
    fleet = SimpleNamespace(plan=StudyFleetPlan(), device_ids=range(10_000))
    return summary_of(results, fleet=fleet, plan=QualityPlan())


def test_shares_are_told_against_the_end_the_best_look_and_in_average_precision(summary):
    first, second = summary["seeds"]
    assert first["kept"] == pytest.approx(0.32 / 0.3)
    assert (first["best_without_noise"], second["best_without_noise"]) == (0.9, 0.8)
    assert first["kept_of_best"] == pytest.approx(0.32 / 0.4)
    assert first["average_precision_kept"] == pytest.approx(0.18 / 0.2)
    assert second["kept"] == second["kept_of_best"] == pytest.approx(0.24 / 0.3)


def test_command_says_that_the_private_arm_ends_above_in_some_seeds(summary):
    text = " ".join(" ".join(summary_lines(summary)).split())
    assert "the private arm ends above the other in 1 of 2 seeds" in text
    assert "keeps 93.3%, of the gain at the best look without noise 80.0%" in text
    assert "average precision 70.0% (medians over seeds)" in text


def test_figures_of_a_bench_say_so_too(summary):
    kept = {}

    class Figures:
        def add(self, name, value, *, against, **_):
            kept[name] = (value, against)

    add_figures(Figures(), summary, named="a study", targets=(None, None))
    name = "share of the gain in average precision that the private run keeps"
    value, against = kept[f"quality, a study: {name}"]
    assert value == pytest.approx(0.7)
    assert "the private one ends above in 1 of them" in against
