import json
from types import SimpleNamespace

import pytest
import typer
from typer.testing import CliRunner

from models.errors import DatasetError
from simulations.commands.fleet import register
from simulations.errors import DiskTooSmallError

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
