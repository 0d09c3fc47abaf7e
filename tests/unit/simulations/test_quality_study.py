"""A small study of what privacy costs: made once, stopped and gone on with, summed up."""

import json
from dataclasses import replace

import numpy as np
import pytest

from models.closed_form_batches import ScaledRows
from models.training_rows import TrainingRows
from models.wire.rounds import LocalRecipe
from server.engine.quality_looks import HeldOutPart
from server.engine.server_optimizer import ServerRecipe
from simulations import quality_study
from simulations.commands.quality import summary_lines
from simulations.quality_fleet import (
    StudyFleet,
    StudyFleetError,
    StudyFleetPlan,
    prepared_fleet,
)
from simulations.quality_plot import draw_study
from simulations.quality_study import (
    ARMS,
    ArmResult,
    QualityPlan,
    run_arm,
    run_study,
    study_name,
    summary_of,
)
from tests.support.made_up_rows import made_up_rows

PLAN = QualityPlan(
    num_rounds=4,
    cohort_size=5,
    local=LocalRecipe(
        least_rows=20, expected_batch_size=10, learning_rate=1.0, record_noise_multiplier=8.0
    ),
    server=ServerRecipe(optimizer="fedavg", learning_rate=1.0),
    look_every=2,
)
NUM_DEVICES = 20


class FewDevices(StudyFleet):
    """Twenty devices with made-up rows in memory; the last has too few."""

    device_ids = tuple(f"device-{number}" for number in range(NUM_DEVICES))
    tables = tuple(made_up_rows(10 if n == 19 else 30, seed=n) for n in range(NUM_DEVICES))
    rows = ScaledRows.stacked([ScaledRows.of(table) for table in tables])
    spans = tuple((30 * n, 30 * n + (10 if n == 19 else 30)) for n in range(NUM_DEVICES))
    held_out = TrainingRows.concatenate([made_up_rows(40, seed=n) for n in (100, 103)])


@pytest.fixture
def fleet(tmp_path):
    return FewDevices(tmp_path, StudyFleetPlan(num_devices=NUM_DEVICES))


@pytest.fixture(scope="module")
def look():
    return HeldOutPart(made_up_rows(60, num_devices=4), every_days=1)


def test_noise_is_that_of_the_policy_over_k_participations():
    plan = QualityPlan()
    schedule = plan.schedule(10_000)
    privacy = plan.policy(schedule, stream="s").privacy
    assert (schedule.participations, privacy.min_separation, privacy.bands) == (10, 20, 20)
    assert privacy.noise_multiplier == pytest.approx(8.39, abs=0.005)
    assert privacy.epsilon_after(10) == pytest.approx(2.0, abs=1e-6)


def test_arms_of_a_seed_start_alike_and_repeat(fleet, look):
    without, private = (run_arm(fleet, look, PLAN, seed=1, arm=arm) for arm in ARMS)
    assert set(without.looks) == {0, 2, 4}
    assert without.start == private.start
    assert without.end != private.end
    assert run_arm(fleet, look, PLAN, seed=1, arm="private") == private
    assert run_arm(fleet, look, PLAN, seed=2, arm="private").end != private.end


def test_private_arm_without_its_noise_is_the_other_arm(fleet, look, monkeypatch):
    without = run_arm(fleet, look, PLAN, seed=1, arm=ARMS[0])
    monkeypatch.setattr(quality_study, "seeded_stream", lambda *_: quality_study.WithoutNoise())
    assert run_arm(fleet, look, PLAN, seed=1, arm="private").looks == without.looks


@pytest.mark.slow
def test_a_study_that_was_stopped_goes_on_where_it_was(fleet, tmp_path):
    folder, ran = tmp_path / "study", []
    whole = run_study(
        fleet, PLAN, seeds=(1, 2), folder=tmp_path / "whole", on_round=lambda: ran.append(1)
    )
    assert len(ran) == 2 * 2 * PLAN.num_rounds

    class StoppedError(Exception):
        pass

    rounds = iter(range(6))

    def stop():
        if next(rounds) == 5:
            raise StoppedError

    with pytest.raises(StoppedError):
        run_study(fleet, PLAN, seeds=(1, 2), folder=folder, on_round=stop)
    assert len(list(folder.glob("*.json"))) == 1
    ran.clear()
    summary = run_study(fleet, PLAN, seeds=(1, 2), folder=folder, on_round=lambda: ran.append(1))
    assert len(ran) == 3 * PLAN.num_rounds
    assert summary == whole
    json.dumps(summary, allow_nan=False)


def test_results_of_another_plan_are_not_taken(fleet):
    names = {
        study_name(fleet, plan)
        for plan in (PLAN, replace(PLAN, clipping_norm=9.0), replace(PLAN, epsilon=3.0))
    }
    assert len(names) == 3


def of_arm(arm, *, auc, average_precision, seed=1):
    start = {"auc": 0.6, "average_precision": 0.1}
    end = {"auc": auc, "average_precision": average_precision}
    return ArmResult(seed=seed, arm=arm, looks={0: start, 4: end})


@pytest.mark.slow
def test_summary_says_what_is_kept_and_what_each_epsilon_means(fleet, tmp_path):
    results = [
        of_arm(ARMS[0], auc=0.8, average_precision=0.3),
        of_arm(ARMS[1], auc=0.79, average_precision=0.29),
    ]
    summary = summary_of(results, fleet=fleet, plan=PLAN)
    (seed,) = summary["seeds"]
    assert seed["gain"] == pytest.approx(0.2)
    assert seed["kept"] == pytest.approx(0.95)
    privacy = summary["privacy"]
    assert privacy["epsilon_release"] == pytest.approx(2.0, abs=1e-6)
    assert privacy["delta"] == 1e-8
    assert any("simulated" in line for line in privacy["assumptions"])
    assert privacy["record"]["delta"] == 1e-5

    text = "\n".join(summary_lines(summary))
    for wanted in ("95.0%", "ε_release = 2 at δ = 1e-08; unit: one device", "ε_record", "one row"):
        assert wanted.replace("one row", "one training row") in text
    draw_study(summary, tmp_path / "study.svg")
    picture = (tmp_path / "study.svg").read_text()
    assert "ε_release = 2.00 at δ = 1e-08" in picture
    with pytest.raises(ValueError, match="end it in"):
        draw_study(summary, tmp_path / "study.pdf")


@pytest.mark.slow
def test_fleet_is_simulated_once_and_another_is_not_taken_for_it(tmp_path):
    plan = StudyFleetPlan(num_devices=20, num_days=260, seed=3)
    blocks = []
    made = prepared_fleet(tmp_path / "fleet", plan, on_devices_done=blocks.append)
    assert sum(blocks) >= 20
    assert len(made.device_ids) == len(made.spans) == 20
    assert made.spans[-1][1] == len(made.rows)
    assert len(made.held_out) > 0
    blocks.clear()
    again = prepared_fleet(tmp_path / "fleet", plan, on_devices_done=blocks.append)
    assert blocks == []
    assert again.device_ids == made.device_ids
    assert np.array_equal(again.rows.inputs, made.rows.inputs)
    with pytest.raises(StudyFleetError, match="holds the fleet"):
        prepared_fleet(tmp_path / "fleet", replace(plan, seed=4))


@pytest.mark.slow
def test_a_fleet_that_was_not_finished_is_made_anew(tmp_path):
    folder = tmp_path / "fleet"
    folder.mkdir()
    (folder / "inputs.npy").write_bytes(b"half")
    made = prepared_fleet(folder, StudyFleetPlan(num_devices=10, num_days=220, seed=3))
    assert made.rows.inputs.dtype == np.float32
