"""The demo end to end: a small one on Mosquitto, the talk alone on the embedded broker."""

import json
import subprocess
import tempfile
from datetime import UTC, datetime

import pytest

from models.bundle import load_bundle
from models.inference import Predictor
from models.trusted_keys import read_trusted_keys
from server.broker import BrokerKind
from server.device_keys import DeviceKeyFile
from server.storage.database import open_database
from server.storage.model_versions import ModelVersions
from simulations.demo.chosen_devices import choose
from simulations.demo.messaging import talk
from simulations.demo.plan import DemoPlan
from simulations.demo.processes import program
from simulations.demo.scene import judged_fleet
from simulations.demo.storyline import run_demo
from simulations.run_report import MODEL_NAMES, read_report
from simulations.run_report_parts import Expectation
from tests.support.processes import processes_naming

TIMEOUT_S = 240


def demo(out, *options):
    return subprocess.run(
        [program("fedcell"), "demo", "--out", str(out), *options],
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
        check=False,
    )


@pytest.fixture(scope="module")
def small_demo(tmp_path_factory):
    """One whole small demo; the old run in its folder is to be replaced."""
    out = tmp_path_factory.mktemp("runs") / "demo"
    out.mkdir()
    (out / "report.json").write_text("{}")
    (out / "of-the-old-run").write_text("")
    return out, demo(out, "--quick", "--broker", "mosquitto", "--json")


@pytest.mark.broker
@pytest.mark.slow
def test_demo_leaves_a_whole_report_of_all_models(small_demo):
    out, run = small_demo
    assert run.returncode == 0, run.stderr
    report = read_report(out / "report.json")

    assert json.loads(run.stdout) == report.to_json()
    assert tuple(report.metrics) == MODEL_NAMES
    assert (
        report.metrics["federated_private"].average_precision
        > 2 * report.metrics["do_nothing"].prevalence
    )
    assert 0 < report.epsilon_release <= 2.0
    assert report.epsilon_server is None
    assert report.record_epsilon > 0
    assert [point.round for point in report.learning_curve["federated_private"]] == [0, 1, 2]
    assert report.broker == "mosquitto"
    assert sum(report.fleet_health.statuses.values()) == report.devices == 60
    assert sum(one.found for one in report.label_score.by_cause.values()) > 0
    assert report.life.failed_at_days is not None
    assert "<h1" in (out / "report.html").read_text()


@pytest.mark.broker
@pytest.mark.slow
def test_demo_sends_what_is_due_and_holds_back_what_would_wake(small_demo):
    out, _ = small_demo
    notices = read_report(out / "report.json").notices
    shown = [one for one in notices.per_device if one.text is not None]
    by_part = {one.expectation: one for one in notices.per_device}

    assert notices.sent == notices.acknowledged == len(shown) >= 1
    assert notices.suppressed == {"quiet_hours": 1}
    assert by_part[Expectation.QUIET_HOURS].state == "suppressed: quiet_hours"
    assert by_part[Expectation.HEALTHY].state == "no_notice_due"
    assert {one.state for one in shown} <= {"accepted", "snoozed"}
    assert all("support@example.org" in one.text for one in shown)


@pytest.mark.broker
@pytest.mark.slow
def test_demo_signs_its_candidate_and_accounts_for_it(small_demo):
    out, _ = small_demo
    keys = read_trusted_keys(out / "candidate.zip.public.json")
    candidate = load_bundle(out / "candidate.zip", trusted_keys=keys)
    ledger = (out / "federated_private" / "ledger.jsonl").read_text().splitlines()
    entry = candidate.manifest["ledger_entry"]

    assert len(ledger) == 2
    assert json.loads(ledger[-1])["hash"] == entry["hash"]
    assert entry["kind"] == "stream"
    assert candidate.card["privacy"]["epsilon_release"]["value"] <= 2.0


@pytest.mark.broker
@pytest.mark.slow
def test_registry_has_released_the_bundle_that_devices_ran_and_no_other(small_demo):
    out, _ = small_demo
    in_use = read_report(out / "report.json").bundle_in_use.version

    with (
        open_database(f"sqlite:///{out / 'hub.db'}", must_exist=True) as database,
        database.transaction() as connection,
    ):
        states = {one.version: one.state for one in ModelVersions(connection).all()}

    assert set(states) == {load_bundle("default").version, in_use}
    assert [version for version, state in states.items() if state == "released"] == [in_use]


@pytest.mark.broker
@pytest.mark.slow
def test_demo_replaces_the_old_run_and_leaves_no_process_behind(small_demo):
    out, _ = small_demo

    assert not (out / "of-the-old-run").exists()
    assert [path.name for path in out.parent.iterdir()] == ["demo"]
    assert processes_naming(str(out.parent)) == []


@pytest.mark.slow
def test_server_and_devices_talk_over_the_embedded_broker(tmp_path):
    fleet = judged_fleet(80, days=300, seed=8)
    cast = choose(fleet, Predictor(load_bundle("default")))
    told = []

    talked = talk(
        fleet,
        cast,
        scratch=tmp_path,
        database_url=f"sqlite:///{tmp_path / 'hub.db'}",
        broker_kind=BrokerKind.EMBEDDED,
        bundle=None,
        tell=told.append,
    )

    assert talked.broker == "embedded"
    assert len(DeviceKeyFile(tmp_path / "device-keys.jsonl")) == len(cast.devices)
    assert talked.notices.sent == talked.notices.acknowledged >= 1
    assert talked.notices.suppressed == {"quiet_hours": 1}
    for device in cast.devices:
        assert sum(line.startswith(f"{device.device_id}: ") for line in told) == 1
    assert processes_naming(str(tmp_path)) == []


@pytest.mark.parametrize("stopped_at", ["simulating", "starting Flower"])
def test_interrupted_demo_leaves_nothing(tmp_path, monkeypatch, stopped_at):
    monkeypatch.setenv("TMPDIR", str(tmp_path / "scratch"))
    monkeypatch.setattr(tempfile, "tempdir", None)
    (tmp_path / "scratch").mkdir()
    plan = DemoPlan(devices=20, judged_devices=40, reference_devices=40, days=260, rounds=1)

    def tell(line):
        if line.startswith(stopped_at):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_demo(
            plan,
            out=tmp_path / "runs" / "demo",
            clock=lambda: datetime.now(UTC),
            elapsed_s=lambda: 0.0,
            tell=tell,
        )

    assert list((tmp_path / "runs").iterdir()) == []
    assert list((tmp_path / "scratch").glob("fedcell*")) == []


@pytest.mark.parametrize(
    ("options", "code", "named"),
    [
        (["--broker", "pigeon"], 2, "'pigeon' is none of auto, mosquitto, embedded"),
        (["--devices", "3"], 2, "devices must be at least 20, got 3"),
        (["--epsilon", "0"], 2, "epsilon must be above 0"),
        (["--delta", "0.9"], 2, "delta must lie in 0 to 1e-05"),
    ],
)
def test_wrong_usage_is_one_line(tmp_path, options, code, named):
    run = demo(tmp_path / "demo", *options)

    assert run.returncode == code
    assert named in run.stderr
    assert len(run.stderr.strip().splitlines()) == 1
    assert not (tmp_path / "demo").exists()


def test_folder_of_something_else_is_refused_before_anything_runs(tmp_path):
    (tmp_path / "mine.txt").write_text("mine")

    run = demo(tmp_path, "--quick")

    assert run.returncode == 3
    assert "no run of the demo; give another --out" in run.stderr
    assert (tmp_path / "mine.txt").read_text() == "mine"
