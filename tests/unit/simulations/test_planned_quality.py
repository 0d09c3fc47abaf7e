"""Studies of quality become measured runs that plans may quote."""

import json
import math

import pytest

from models.network_shape import NUM_WEIGHTS
from privacy.banded_factor import prefix_sum_error
from privacy.simulated_quality import SimulatedRun
from simulations.planned_quality import DATA_FILE, main, run_of
from simulations.quality_fleet import StudyFleet, StudyFleetPlan
from simulations.quality_study import ARMS, ArmResult, QualityPlan, summary_of

pytestmark = pytest.mark.slow


def look(auc):
    return {"loss": 0.1, "auc": auc, "average_precision": auc / 4, "prevalence": 0.02}


@pytest.fixture(scope="module")
def summary(tmp_path_factory):
    folder = tmp_path_factory.mktemp("study")
    ids = [f"d{number}" for number in range(800)]
    (folder / "made-of.json").write_text(json.dumps({"device_ids": ids}))
    results = [
        ArmResult(seed=seed, arm=arm, looks={0: look(0.5), 104: look(0.8 - 0.1 * (arm != ARMS[0]))})
        for seed in (1, 2)
        for arm in ARMS
    ]
    return summary_of(
        results,
        fleet=StudyFleet(folder, StudyFleetPlan(num_devices=800)),
        plan=QualityPlan(num_rounds=104, cohort_size=160, epsilon=1.83),
    )


def test_a_study_becomes_a_run_with_its_command(summary):
    run = run_of(json.loads(json.dumps(summary)))

    assert (run.devices, run.participations, run.separation, run.bands) == (800, 21, 5, 5)
    assert run.weights == NUM_WEIGHTS
    assert run.epsilon == pytest.approx(1.83)
    assert run.start_auc == (0.5, 0.5)
    assert run.private_average_precision == (0.175, 0.175)
    assert run.gain_kept == pytest.approx(2 / 3)
    assert run.source.startswith("fedcell simulate quality --devices 800 --cohort 160 --rounds 104")
    noise = run.noise_multiplier * prefix_sum_error(104, 5) * math.sqrt(NUM_WEIGHTS)
    assert run.signal_to_noise == pytest.approx(104 * 160 / noise)


def test_each_command_has_one_run_in_the_data_file(summary, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    DATA_FILE.parent.mkdir()
    (tmp_path / "quality.json").write_text(json.dumps(summary))
    longer = summary | {"plan": summary["plan"] | {"num_rounds": 208}}
    (tmp_path / "longer.json").write_text(json.dumps(longer))

    for names in (["quality.json"], ["quality.json"], ["longer.json"]):
        main(names)

    written = [SimulatedRun.from_json(run) for run in json.loads(DATA_FILE.read_text())["runs"]]
    assert written == [run_of(summary), run_of(longer)]
