"""The answer of `fedcell simulate faults`, from a study that the folder holds already."""

import json

import pytest
from click.testing import CliRunner

from server.commands.root import root_command
from simulations.commands.faults import summary_lines
from simulations.fault_plot import draw_faults
from simulations.fault_study import FaultResult, summary_of
from simulations.quality_study import QualityPlan
from tests.support.small_fleet import SmallFleet


def result(arm, precision, *, seed, refused=None):
    return FaultResult(
        seed=seed,
        arm=arm,
        looks={0: {"average_precision": 0.02}, 200: {"average_precision": precision}},
        rounds=200,
        complete=199,
        noise_only=1,
        replied=350.0,
        refused=refused or {},
        triggered={"false_alarm": 0.25, "hidden_failure": 0.5},
        epsilon_release=2.0,
        seconds=1.0,
    )


@pytest.fixture
def summary():
    results = [
        result("clean", 0.30, seed=1),
        result("clean", 0.28, seed=2),
        result("10 % scaled", 0.29, seed=1, refused={"beyond_bound": 7}),
        result("10 % scaled", 0.25, seed=2),
    ]
    return summary_of(results, fleet=SmallFleet(600, 2), plan=QualityPlan())


def test_each_arm_is_held_against_the_clean_run_of_its_seed(summary):
    clean, scaled = summary["arms"]
    assert clean["lost"] == 0
    assert scaled["lost_by_seed"] == pytest.approx([0.01, 0.03])
    assert scaled["lost"] == pytest.approx(0.02)
    assert scaled["complete"] == pytest.approx(0.995)
    lines = summary_lines(summary)
    assert "+0.020 (+0.010 to +0.030)" in lines[2]
    assert "10 % scaled: refused 7 beyond_bound" in lines
    assert any(
        "ε_release" in line and "δ = 1e-08" in line and "one device" in line for line in lines
    )


@pytest.mark.parametrize("ending", [".svg", ".png"])
def test_the_picture_is_drawn_whole(summary, tmp_path, ending):
    draw_faults(summary, tmp_path / f"faults{ending}")
    assert (tmp_path / f"faults{ending}").stat().st_size > 2000
    with pytest.raises(ValueError, match="end it in"):
        draw_faults(summary, tmp_path / "faults.pdf")


def test_an_unknown_part_is_refused_before_anything_runs(tmp_path):
    asked = ["simulate", "faults", "--out", str(tmp_path / "study"), "--part", "other"]
    answer = CliRunner().invoke(root_command(), asked)
    assert answer.exit_code == 2
    assert "is none of faults, poisons, backdoors, past" in answer.output.replace("\n", " ")
    assert not (tmp_path / "study").exists()


def test_a_study_can_be_read_as_json(summary):
    assert json.loads(json.dumps(summary))["privacy"]["delta"] == 1e-8
