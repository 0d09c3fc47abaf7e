import json
from types import SimpleNamespace

import pytest
import typer
from typer.testing import CliRunner

from models.errors import DatasetError
from simulations.commands.fleet import register
from simulations.commands.scenarios import scenario_names
from simulations.errors import DiskTooSmallError
from simulations.scenarios import SCENARIO_NAMES, ScenarioError

SMALL = ["simulate", "fleet", "--devices", "30", "--days", "60", "--seed", "4"]


@pytest.fixture
def run():
    app = typer.Typer()
    app.command("other")(lambda: None)
    register(app)

    def invoke(*arguments):
        return CliRunner().invoke(app, [str(argument) for argument in arguments])

    return invoke


def test_fleet_is_written_and_summed_up(run, tmp_path):
    answer = run(*SMALL, "--out", tmp_path / "fleet")

    assert answer.exit_code == 0
    assert "readings of 30 devices over 60 days" in answer.stdout
    assert "30-day prevalence" in answer.stdout
    assert sorted(path.name for path in (tmp_path / "fleet").iterdir()) == [
        "answers.parquet",
        "devices.parquet",
        "outcomes.parquet",
        "simulation.json",
        "telemetry.parquet",
    ]


def test_json_answer_holds_prevalence_and_causes(run, tmp_path):
    deadly = "sudden_deaths_a_year=2"

    answer = run(*SMALL, "--out", tmp_path / "fleet", "--json", "--set", deadly)

    told = json.loads(answer.stdout)
    assert told["devices"] == 30
    assert told["prevalence_30d"] > 0.05
    assert told["cause_shares"]["sudden_death"] > 0.5
    assert 0 <= told["silent_failure_share"] <= 1


def test_options_turn_the_knobs_of_the_recipe(run, tmp_path):
    run(
        *SMALL,
        *("--out", tmp_path / "fleet", "--climate-mix", "hot-arid=1", "--gauge-bias", "2"),
        *("--bad-lot-share", "0.5", "--set", "efc_median=0.8"),
    )

    recipe = json.loads((tmp_path / "fleet" / "simulation.json").read_text())["recipe"]
    assert recipe["climate_mix"] == [0.0, 0.0, 0.0, 1.0, 0.0]
    assert recipe["gauge_bias_scale"] == 2.0
    assert recipe["bad_lot_share"] == 0.5
    assert recipe["efc_median"] == 0.8


@pytest.mark.parametrize("setting", ["loudness=3", "bad_lot_share=lots"])
def test_unknown_knobs_and_values_are_refused_before_anything_is_written(run, tmp_path, setting):
    answer = run(*SMALL, "--out", tmp_path / "fleet", "--set", setting)

    assert isinstance(answer.exception, ValueError)
    assert setting.split("=")[0] in str(answer.exception)
    assert not (tmp_path / "fleet").exists()


def test_setting_without_a_value_is_wrong_usage(run, tmp_path):
    assert run(*SMALL, "--out", tmp_path / "fleet", "--set", "loudness").exit_code == 2


def test_taken_folder_is_left_alone(run, tmp_path):
    (tmp_path / "mine.txt").write_text("keep")

    answer = run(*SMALL, "--out", tmp_path)

    assert isinstance(answer.exception, DatasetError)
    assert "exists already" in str(answer.exception)
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]


def test_fleet_that_does_not_fit_the_disk_is_refused_before_it_is_simulated(
    run, tmp_path, monkeypatch
):
    monkeypatch.setattr(
        "simulations.fleet_writing.shutil.disk_usage", lambda _: SimpleNamespace(free=80_000)
    )
    answer = run(*SMALL, "--out", tmp_path / "new" / "fleet")

    assert isinstance(answer.exception, DiskTooSmallError)
    assert answer.exception.exit_code == 6
    assert "up to 7,200 readings take about 0.0 GB" in str(answer.exception)
    assert list(tmp_path.iterdir()) == []


def test_more_devices_than_memory_holds_are_wrong_usage(run, tmp_path):
    answer = run(*SMALL, "--devices", "99999999999", "--out", tmp_path / "fleet")

    assert answer.exit_code == 2
    assert not (tmp_path / "fleet").exists()


def test_fleet_of_a_scenario_takes_its_recipe_and_what_is_set_beside_it(run, tmp_path):
    small = ("--devices", "12", "--days", "40", "--seed", "4", "--out", tmp_path / "fleet")

    answer = run(
        "simulate", "fleet", "--scenario", "sparse-telemetry", *small, "--gauge-noise", "0.02"
    )

    assert answer.exit_code == 0
    made_of = json.loads((tmp_path / "fleet" / "simulation.json").read_text())
    assert made_of["scenario"] == "sparse-telemetry"
    assert (made_of["num_devices"], made_of["num_days"], made_of["seed"]) == (12, 40, 4)
    assert made_of["recipe"]["lost_reading_share"] == 0.4
    assert made_of["recipe"]["gauge_noise"] == 0.02


def test_fleet_of_a_file_of_ones_own_has_its_size(run, tmp_path):
    path = tmp_path / "own.toml"
    path.write_text(
        'summary = "Mine."\ndescription = "Small."\ndevices = 7\ndays = 30\nseed = 9\n'
        "[recipe]\ncadence_h = 24\n"
    )

    answer = run("simulate", "fleet", "--scenario", path, "--out", tmp_path / "fleet", "--json")

    told = json.loads(answer.stdout)
    assert (told["devices"], told["days"], told["seed"]) == (7, 30, 9)
    assert told["scenario"] == "own"


def test_fleet_without_scenario_needs_its_size(run, tmp_path):
    answer = run("simulate", "fleet", "--devices", "5", "--out", tmp_path / "fleet")

    assert answer.exit_code == 2
    assert "--days" in answer.output


def test_unknown_scenario_is_refused_before_anything_is_written(run, tmp_path):
    answer = run("simulate", "fleet", "--scenario", "moon", "--out", tmp_path / "fleet")

    assert isinstance(answer.exception, ScenarioError)
    assert not (tmp_path / "fleet").exists()


def test_scenarios_are_listed_with_their_prevalence(run):
    answer = run("simulate", "scenarios")

    assert answer.exit_code == 0
    lines = answer.stdout.splitlines()
    assert len(lines) >= len(SCENARIO_NAMES) + 1
    for name in SCENARIO_NAMES:
        assert any(line.startswith(name) and " %" in line for line in lines)


def test_scenarios_as_json_hold_recipes_and_faults(run):
    told = json.loads(run("simulate", "scenarios", "--json").stdout)

    assert [one["name"] for one in told] == list(SCENARIO_NAMES)
    hostile = told[SCENARIO_NAMES.index("hostile")]
    assert hostile["faults"]["poisons"] == ["scaled", "sign_flipped", "label_flipped"]
    assert hostile["recipe"]["fade_scale"] == told[0]["recipe"]["fade_scale"]
    assert 0.002 < told[1]["prevalence_30d"] < 0.004


def test_one_scenario_is_shown_with_what_it_differs_in(run):
    told = run("simulate", "scenarios", "hostile").stdout

    assert "lies = past clipping" in told
    assert "fade_scale = " in told
    assert "warming_c" not in told


def test_prevalence_is_measured_anew_on_request(run):
    answer = run("simulate", "scenarios", "ageing", "--measure", "60", "--json")

    told = json.loads(answer.stdout)
    low, high = told["measured_interval"]
    assert low <= told["measured_30d"] <= high
    assert high > 0.01


def test_shell_completes_the_names_of_scenarios():
    assert scenario_names("h") == ["healthy", "hot", "hostile"]
    assert scenario_names("") == list(SCENARIO_NAMES)
