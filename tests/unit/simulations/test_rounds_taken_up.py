"""A run that goes on has the options that it began with; what contradicts them is refused."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from server.plans.plan_file import PlanContradictedError
from simulations.commands.rounds import _PLANNED
from simulations.commands.rounds_carrying import command_record
from simulations.commands.rounds_taken_up import RunContradictedError, options_of_run
from tests.support.command_line import fedcell
from tests.support.stream_policies import stream_policy

BEGAN = {
    "fleet": Path("fleet"),
    "bundle": "none",
    "rounds": 30,
    "cohort": 12,
    "epsilon": 2.0,
    "patience": 4,
    "seed": None,
    "privacy_home": None,
    "metrics_port": 9100,
}
YESTERDAY = Path(__file__).parents[2] / "golden" / "run_report_v1"


def began(folder, *, policy=None, **options):
    folder.mkdir()
    record = command_record(BEGAN | options, policy=policy)
    (folder / "command.json").write_text(json.dumps(record))
    return folder


def taken_up(folder, **said):
    return options_of_run(folder, said, planned=_PLANNED)


def test_options_that_nobody_says_come_from_the_folder(tmp_path):
    options, policy = taken_up(began(tmp_path / "run"), workers=2)
    assert policy is None
    assert (options["patience"], options["rounds"], options["cohort"]) == (4, 30, 12)
    assert (options["workers"], options["resume"]) == (2, True)
    assert options["out"] == tmp_path / "run"


@pytest.mark.parametrize(
    ("said", "flag"),
    [
        ({"rounds": 500}, "--rounds"),
        ({"epsilon": 1.0}, "--epsilon"),
        ({"patience": 0}, "--patience"),
        ({"cohort": 13}, "--cohort"),
        ({"noise": False}, "--no-noise"),
        ({"seed": 3}, "--seed"),
        ({"bundle": "default"}, "--bundle"),
        ({"proximal": 0.5}, "--proximal"),
        ({"privacy_home": Path("another home")}, "--privacy-home"),
    ],
)
def test_option_that_contradicts_the_run_is_refused_by_name(tmp_path, said, flag):
    run = began(tmp_path / "run")
    with pytest.raises(RunContradictedError, match=f"{flag} is not what the run in") as caught:
        taken_up(run, **said)
    assert caught.value.exit_code == 2


def test_what_agrees_may_be_said_again_and_places_anew(tmp_path):
    run = began(tmp_path / "run", privacy_home=tmp_path / "home")
    options, _ = taken_up(
        run,
        rounds=30,
        epsilon=2.0,
        fleet=Path("moved"),
        privacy_home=tmp_path / "moved",
        metrics_port=0,
    )
    assert (options["fleet"], options["metrics_port"]) == (Path("moved"), 0)
    assert options["privacy_home"] == tmp_path / "moved"


def test_plan_of_a_run_stays_its_plan(tmp_path):
    policy = stream_policy()
    run = began(tmp_path / "run", policy=policy, rounds=None)
    options, found = taken_up(run, rounds=policy.num_rounds)
    assert (found, options["rounds"]) == (policy, None)
    with pytest.raises(PlanContradictedError, match="--rounds"):
        taken_up(run, rounds=policy.num_rounds + 1)

    other = tmp_path / "other.json"
    other.write_text(json.dumps(replace(policy, min_replies=policy.min_replies + 1).to_json()))
    with pytest.raises(PlanContradictedError, match="planned otherwise"):
        taken_up(run, plan_file=str(other))
    with pytest.raises(PlanContradictedError, match="planned otherwise"):
        taken_up(began(tmp_path / "unplanned"), plan_file=other)


def test_run_of_yesterday_is_held_against_its_report():
    assert taken_up(YESTERDAY, rounds=3) is None
    with pytest.raises(RunContradictedError, match="--rounds"):
        taken_up(YESTERDAY, rounds=4)


def test_command_that_contradicts_a_run_leaves_it_as_it_is(tmp_path):
    run = began(tmp_path / "run")
    before = {path.name: path.read_bytes() for path in run.iterdir()}
    ran = fedcell(
        *("rounds", "start", "--fleet", tmp_path, "--out", run, "--rounds", 500, "--resume"),
        *("--privacy-home", tmp_path / "wrong home"),
    )
    assert ran.code == 2
    assert "began with" in " ".join(ran.err.split())
    assert {path.name: path.read_bytes() for path in run.iterdir()} == before
    assert not (tmp_path / "wrong home").exists()
