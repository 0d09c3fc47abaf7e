"""`fedcell rounds start` up to the engine and after it: plans, refusals, summary, bundle."""

import json
from datetime import UTC, datetime

import numpy as np
import pytest
from click.testing import CliRunner

from models.training.local_epochs import new_flat_weights
from privacy import next_entry
from server.commands.root import root_command
from server.engine.rounds import RoundRecord
from server.plans.plan_file import PlanError, read_plan
from server.privacy_home.participation_counts import StepCost, StreamRecord
from server.runs.folder import RunFolder, RunFolderError
from server.runs.report_layout import record_epsilon, report_of
from simulations import run_rounds
from simulations.fleet_rows import FleetRows
from simulations.rounds import KeptAt, starting_bundle, starting_parameters
from simulations.rounds_recipes import plan_for, under_policy
from simulations.rounds_summary import SHORT, summary_lines
from simulations.seeded_noise import SeededNoise
from tests.support.made_up_rows import made_up_rows
from tests.support.stream_policies import stream_policy

NOW = datetime(2026, 3, 1, tzinfo=UTC)


def plan_of(**changes):
    values = {
        "num_rounds": 6,
        "cohort_size": 5,
        "epsilon": 2.0,
        "delta": 1e-6,
        "is_record_private": True,
        "is_warm": False,
    }
    return plan_for(**(values | changes))


def report_from(plan, *, population=10, with_metrics=True):
    """A report as a run over `population` devices leaves it."""
    config = plan.config(population)
    schedule = config.schedule(population)
    terms = config.terms(schedule)
    policy, noise = terms.privacy, terms.comparison_noise(SeededNoise(1))
    event = terms.event(0, noise=noise, most_participations=1, noise_only=False)
    metrics = {"loss": 0.5, "average_precision": 0.25, "auc": None, "prevalence": 0.02}
    record = RoundRecord(
        index=0,
        invited=5,
        replied=5,
        refused={},
        most_participations=1,
        epsilon_release=None if policy is None else policy.epsilon_after(1),
        metrics=metrics if with_metrics else None,
        seconds=1.0,
    )
    return report_of(
        config,
        status="finished",
        schedule=schedule,
        terms=terms,
        noise=noise,
        rounds=[record],
        start_metrics=metrics if with_metrics else None,
        record=record_epsilon(config.recipe, participations=1, delta=1e-5),
        entries=[next_entry(None, event, kind=terms.entry_kind(noise), at=NOW)],
        versions={"python": "3.11"},
        started_at=NOW,
        seconds=1.0,
    )


def test_sigma_follows_from_the_participations_that_the_schedule_gives():
    config = plan_of().config(10)
    schedule = config.schedule(10)
    assert schedule.participations == 3
    assert config.policy(schedule).epsilon_after(3) == pytest.approx(2.0, rel=1e-6)


def test_without_a_cohort_every_device_is_invited():
    assert plan_of(cohort_size=None).config(37).cohort_size == 37


def test_streams_differ_unless_a_seed_repeats_them():
    assert plan_of().config(10).stream != plan_of().config(10).stream
    assert plan_of(seed=7).config(10).stream == plan_of(seed=7).config(10).stream


def test_the_recipe_follows_from_start_and_noise():
    without_noise = plan_of(epsilon=None, is_record_private=False)
    assert (without_noise.recipe.steps, without_noise.server.optimizer) == (1, "fedadam")
    assert not without_noise.recipe.is_record_private
    for plan in (plan_of(), plan_of(is_warm=True)):
        assert plan.server.optimizer == "fedavg"
        assert plan.recipe.is_record_private


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"cohort_size": 11}, "cohort_size"),
        ({"delta": 1.0}, "delta"),
        ({"epsilon": 0.0}, "epsilon"),
        ({"clipping_norm": 0.0}, "clipping_norm"),
    ],
)
def test_an_impossible_plan_is_refused_before_anything_is_written(tmp_path, changes, named):
    rows = FleetRows(
        device_ids=tuple(f"d{number}" for number in range(10)),
        training=made_up_rows(190, num_devices=10),
        held_out=made_up_rows(50, num_devices=2),
    )
    out = tmp_path / "run"
    with pytest.raises(ValueError, match=named):
        run_rounds(rows, out, plan_of(**changes), clock=lambda: NOW)
    assert not out.exists()


@pytest.mark.parametrize("changes", [{"epsilon": None}, {"seed": 3}, {"noise": "independent"}])
def test_what_is_never_released_does_not_count_for_life(tmp_path, changes):
    rows = FleetRows(
        device_ids=tuple(f"d{number}" for number in range(10)),
        training=made_up_rows(190, num_devices=10),
        held_out=made_up_rows(50, num_devices=2),
    )
    kept = KeptAt(privacy_home=tmp_path / "home")
    with pytest.raises(ValueError, match="privacy_home must be left out"):
        run_rounds(rows, tmp_path / "run", plan_of(**changes), clock=lambda: NOW, kept=kept)
    assert list(tmp_path.iterdir()) == []


def test_participations_of_a_life_are_no_fewer_than_the_run_asks_for():
    with pytest.raises(ValueError, match="max_participations must be at least 3"):
        plan_of(max_participations=2).config(10)
    config = plan_of(max_participations=12).config(10)
    policy = config.policy(config.schedule(10))
    assert policy.epsilon_after(3) < 1.0
    assert policy.epsilon_after(12) == pytest.approx(2.0, rel=1e-6)


def test_random_weights_repeat_with_a_seed_and_differ_without():
    assert starting_bundle("none", trusted_keys={}) is None
    first, again = (starting_parameters(None, seed=3).flat() for _ in range(2))
    assert np.array_equal(first, again)
    assert not np.array_equal(first, starting_parameters(None, seed=None).flat())


def test_rounds_from_the_default_bundle_start_from_its_weights():
    bundle = starting_bundle("default", trusted_keys={})
    weights = starting_parameters(bundle, seed=None).flat()
    assert weights.shape == new_flat_weights(seed=0).shape
    assert not np.array_equal(weights, new_flat_weights(seed=0))


@pytest.mark.slow
def test_summary_puts_every_epsilon_beside_its_delta_and_unit():
    lines = "\n".join(summary_lines(report_from(plan_of()), result="run/bundle.zip"))
    assert "at δ = 1e-06" in lines
    assert "unit: one device, its whole life" in lines
    assert "no amplification by sampling" in lines
    assert "ε_server     unbounded" in lines
    assert "one training row" in lines
    assert "average precision  0.2500 → 0.2500" in lines
    assert "AUC                not measurable → not measurable" in lines
    assert lines.index("average precision") < lines.index("ε_release") < lines.index("assumes")
    assert lines.endswith("run/bundle.zip")


def test_summary_of_a_comparison_says_that_it_is_unbounded():
    plan = plan_of(epsilon=None, is_record_private=False)
    lines = "\n".join(summary_lines(report_from(plan, with_metrics=False), result="run"))
    assert "unbounded (no noise was added: for comparison only)" in lines
    assert "ε_record     off" in lines
    assert "no device is held out" in lines


def test_the_deadline_of_a_round_is_what_was_said():
    assert plan_of().config(10).deadline_s == 600.0
    assert plan_of(deadline_s=90.0).config(10).deadline_s == 90.0


def summary_after(**changes):
    report = report_from(plan_of())
    report["rounds"][0]["metrics"] = {**report["start_metrics"], **changes}
    return "\n".join(summary_lines(report, result="run/bundle.zip"))


@pytest.mark.slow
def test_a_model_that_got_worse_than_its_start_is_told_before_its_figures():
    lines = summary_after(loss=5.5, average_precision=0.3)
    assert "WORSE        than what it started from: loss 0.5000 → 5.5000" in lines
    assert lines.index("WORSE") < lines.index("average precision")
    assert "WORSE" not in summary_after(loss=0.4)


def test_a_prevalence_of_zero_gives_its_reason():
    assert "no held-out window is followed by a failure" in summary_after(prevalence=0.0)


def test_every_assumption_has_a_short_form():
    assumed = report_from(plan_of())["privacy"]["assumptions"]
    assert [one for one in assumed if one not in SHORT] == []


def test_a_folder_whose_run_invited_nobody_can_be_used_again(tmp_path):
    folder = RunFolder(tmp_path / "run")
    with pytest.raises(RunFolderError):
        RunFolder(tmp_path / "run")
    folder.discard_unless_begun("s")
    again = RunFolder(tmp_path / "run")
    again.home.open_stream("s", StreamRecord(policy_digest="", anchor="", max_participations=1))
    cost = StepCost(mu_squared=1.0)
    again.home.invite("s", 0, device_ids=["a"], choose=lambda _: [0], cost=cost)
    again.discard_unless_begun("s")
    assert again.home.life_counts(["a"]).participations.tolist() == [1]


def test_command_refuses_an_unknown_optimiser_by_name(tmp_path):
    arguments = ["rounds", "start", "--fleet", str(tmp_path), "--rounds", "1"]
    arguments += ["--out", str(tmp_path / "run"), "--bundle", "none", "--optimizer", "sgd"]
    result = CliRunner().invoke(root_command(), arguments)
    assert result.exit_code == 2
    assert "sgd" in result.output
    assert not (tmp_path / "run").exists()


def test_help_says_that_epsilon_covers_a_devices_whole_life():
    shown = CliRunner(env={"COLUMNS": "200"}).invoke(root_command(), ["rounds", "start", "--help"])
    (line,) = [line for line in shown.output.splitlines() if "--epsilon" in line]

    assert "ε of a device's life, over all models." in line


def test_a_plan_decides_the_rounds_of_a_simulated_fleet():
    policy = stream_policy(num_rounds=8, cohort_size=3, separation=2, participations=5)
    plan = under_policy(plan_of(), policy)
    config = plan.config(6)

    assert (plan.num_rounds, config.num_rounds, config.cohort_size) == (8, 8, 3)
    assert (config.stream, config.max_participations, config.update_share) == ("s", 5, 0.85)
    assert config.recipe.least_rows == policy.record.least_rows
    with pytest.raises(PlanError, match="takes 6 devices that train, and 5 are enrolled"):
        plan.config(5)


@pytest.mark.parametrize(
    ("said", "answer"),
    [
        (["--rounds", "5"], "--rounds is 5, and the plan says 104"),
        (["--epsilon", "3"], "--epsilon is 3, and the plan says 2"),
        (["--clip", "0.5"], "--clip is 0.5, and the plan says 0.3"),
        (["--max-participations", "3"], "--max-participations is 3, and the plan says 24"),
        (["--no-noise"], "--no-noise is not what the plan says"),
        (["--no-record-level"], "--record-level or --no-record-level is not what the plan says"),
    ],
)
def test_options_that_contradict_a_plan_are_refused(tmp_path, said, answer):
    plan, run = tmp_path / "policy.json", tmp_path / "run"
    plan.write_bytes(stream_policy().to_bytes())
    files = ["--fleet", str(tmp_path), "--out", str(run), "--plan", str(plan)]
    told = CliRunner().invoke(root_command(), ["rounds", "start", *files, *said])

    assert (told.exception.exit_code, run.exists()) == (2, False)
    assert answer in str(told.exception)


def test_a_plan_of_a_greater_delta_than_devices_obey_is_refused(tmp_path):
    value = stream_policy().to_json()
    value["privacy"]["delta"] = 1e-4
    plan = tmp_path / "policy.json"
    plan.write_text(json.dumps(value))
    with pytest.raises(PlanError, match=r"delta is 0\.0001, and devices refuse more than 1e-05"):
        read_plan(plan)


def test_a_delta_that_promises_too_little_is_refused_before_anything_is_read(tmp_path):
    run = tmp_path / "run"
    files = ["--fleet", str(tmp_path), "--out", str(run), "--rounds", "1"]
    told = CliRunner().invoke(root_command(), ["rounds", "start", *files, "--delta", "0.3"])

    assert (told.exit_code, run.exists()) == (2, False)
    assert "0.3 is not in the range" in told.output


def test_rounds_or_a_plan_must_be_said(tmp_path):
    told = CliRunner().invoke(
        root_command(),
        ["rounds", "start", "--fleet", str(tmp_path), "--out", str(tmp_path / "run")],
    )

    assert told.exit_code == 2
    assert "say --rounds N, or --plan FILE" in told.output
