"""What an operator of a deployed run chooses of its training, and how the run is looked at."""

import json
import tomllib

import numpy as np
import pytest
from flwr.app import ConfigRecord, Context, RecordDict
from flwr.app.user_config import UserConfig

from models.bundle import load_bundle
from models.training.export_onnx import read_parameters
from models.training.local_epochs import new_flat_weights
from models.wire.rounds import DEVICES_RECORD, RECEIPT_MESSAGE
from server.deployed_run import deployed_run
from server.engine import run_configuration
from server.engine.early_stop import REFERENCE_QUALITY
from server.engine.reference_fleet import ReferenceHalves, ReferenceRows
from server.engine.rounds import RoundsError
from server.engine.training_recipes import FROM_TRAINED_WEIGHTS
from server.flower_app import app
from server.plans.plan_file import PlanContradictedError
from server.signer import make_key_file
from tests.support.command_line import fedcell
from tests.support.federated_rounds import contribution, task_of
from tests.support.flower_grid import GridInMemory
from tests.support.operator_keys import make_stream_key_file
from tests.support.stream_policies import stream_policy
from tests.support.system_parts import REPOSITORY

DECLARED = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["tool"]["flwr"]["app"][
    "config"
]
START = new_flat_weights(seed=1)


@pytest.fixture
def run_config(tmp_path):
    np.savez(tmp_path / "start.npz", weights=START)
    make_key_file(tmp_path / "policy.pem")
    make_stream_key_file(tmp_path / "stream.operator")
    return DECLARED | {
        "stream-key-file": str(tmp_path / "stream.operator"),
        "policy-key": str(tmp_path / "policy.pem"),
        "privacy-home": str(tmp_path / "home"),
        "start-weights": str(tmp_path / "start.npz"),
        "out": str(tmp_path / "run"),
        "rounds": 6,
        "cohort": 1,
    }


@pytest.fixture(scope="module")
def reference(tmp_path_factory):
    folder = tmp_path_factory.mktemp("reference") / "fleet"
    fedcell(*("simulate", "fleet", "--devices", 40, "--days", 250, "--seed", 21, "--out", folder))
    return folder


def node(message):
    if message.metadata.message_type == "query":
        return [RecordDict({DEVICES_RECORD: ConfigRecord({"device_ids": ["d-2", "d-5"]})})]
    if message.metadata.message_type == RECEIPT_MESSAGE:
        return [RecordDict()]
    task = task_of(message)
    facts = {"stream": task.stream, "index": task.index, "num_devices": len(task.device_ids)}
    return [contribution(np.zeros(len(START), np.int64), **facts)]


def carried_out(run_config):
    """Carry the run out to its end, and return its report."""
    context = Context(
        run_id=1, node_id=1, node_config=UserConfig(), state=RecordDict(), run_config=run_config
    )
    app(grid=GridInMemory({1: node}), context=context)
    return run_config["out"]


def test_every_part_of_the_recipe_is_the_operators_choice(run_config):
    said = {
        "optimizer": "fedadam",
        "server-rate": 0.02,
        "local-steps": 4,
        "sampling-rate": 0.25,
        "batch-size": 64,
        "local-rate": 0.2,
        "record-noise": 1.5,
        "proximal": 2.0,
        "log-level": "debug",
    }
    run = deployed_run(run_config | said)

    assert (run.config.server.optimizer, run.config.server.learning_rate) == ("fedadam", 0.02)
    local = run.config.recipe
    assert (local.steps, local.sampling_rate, local.expected_batch_size) == (4, 0.25, 64)
    assert (local.learning_rate, local.record_noise_multiplier, local.proximal) == (0.2, 1.5, 2.0)
    assert run.watching.log_level == "debug"


@pytest.mark.parametrize(("name", "rate"), [("", 1.5), ("fedavgm", 0.15), ("fedadam", 0.01)])
def test_each_optimiser_has_a_usual_rate(run_config, name, rate):
    server = deployed_run(run_config | {"optimizer": name}).config.server

    assert server.optimizer == (name or FROM_TRAINED_WEIGHTS.server.optimizer)
    assert server.learning_rate == pytest.approx(rate)


@pytest.mark.parametrize(
    ("said", "parts"),
    [
        ({"optimizer": "sgd"}, "optimizer is 'sgd'.*fedavg, fedavgm, fedadam"),
        ({"log-level": "loud"}, "log-level is 'loud'.*debug, info"),
        ({"patience": 3}, "patience is 3, and nothing is looked at; add --run-config 'reference="),
        ({"start-weights": "nowhere.npz"}, "nowhere.npz holds no weights.*weights.npz of a run"),
    ],
)
def test_what_cannot_be_is_refused_by_name(run_config, said, parts):
    with pytest.raises(RoundsError, match=parts):
        deployed_run(run_config | said)


def test_a_plans_way_of_training_is_not_contradicted(run_config, tmp_path):
    plan = stream_policy(stream="planned", num_rounds=6, cohort_size=1, separation=2)
    (tmp_path / "policy.json").write_bytes(plan.to_bytes())
    said = run_config | {key: DECLARED[key] for key in ("rounds", "cohort", "delta")}
    said |= {"plan": str(tmp_path / "policy.json"), "local-steps": plan.record.steps + 7}
    with pytest.raises(PlanContradictedError, match=r"local-steps is .*leave local-steps out"):
        deployed_run(said)


def test_rounds_start_from_the_weights_of_a_bundle(run_config):
    run = deployed_run(run_config | {"start-weights": "default"})
    default = load_bundle("default")

    assert np.array_equal(run.start, read_parameters(default.model_bytes).flat())
    assert run.facts["started_from"] == default.version


def test_default_weights_are_found_beside_the_installed_package(run_config, monkeypatch, tmp_path):
    """Flower unpacks the app without its model."""
    unpacked = tmp_path / "app" / "models" / "default_bundle"
    monkeypatch.setattr(run_configuration, "DEFAULT_FOLDER", unpacked)
    monkeypatch.syspath_prepend(tmp_path / "app")
    assert deployed_run(run_config | {"start-weights": "default"}).facts["started_from"]

    monkeypatch.setattr("sys.path", [str(tmp_path / "app")])
    with pytest.raises(RoundsError, match="no default bundle is installed here"):
        run_configuration.starting_weights({"start-weights": "default"})


@pytest.mark.slow
def test_looks_take_half_of_the_reference_fleet_and_leave_the_other_to_the_gate(reference):
    halves = ReferenceHalves.of(40)
    rows = ReferenceRows.of(reference)

    assert not (halves.calibrate & halves.judge).any()
    assert (halves.calibrate | halves.judge).all()
    assert halves.calibrate[rows.calibrate.device].all()
    assert halves.judge[rows.judge.device].all()
    assert len(rows.calibrate) > 0
    assert len(rows.judge) > 0


@pytest.mark.slow
def test_run_that_gets_no_better_on_the_reference_fleet_stops_early(run_config, reference):
    said = {"reference": str(reference), "patience": 2, "start-weights": "default", "rounds": 6}
    # Noise moves trained weights away from all that they know: no look is a gain.
    folder = carried_out(run_config | said | {"server-rate": 30.0})

    found = json.loads((REPOSITORY / folder / "run.json").read_text(encoding="utf-8"))
    assert found["status"] == "finished"
    assert len(found["rounds"]) == 2
    looks = [found["start_metrics"], *(one["metrics"] for one in found["rounds"])]
    assert all(0 < look[REFERENCE_QUALITY] < 1 for look in looks)
    assert len(found["record"]["reference_sha256"]) == 64
    watched = fedcell("rounds", "watch", folder, "--once", "--json").json()
    assert watched["quality"][REFERENCE_QUALITY] == looks[-1][REFERENCE_QUALITY]
    said_of_it = fedcell("rounds", "history", folder).out
    assert f"{looks[-1][REFERENCE_QUALITY]:.4f}" in said_of_it
