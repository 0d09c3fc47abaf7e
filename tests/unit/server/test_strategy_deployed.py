"""The ServerApp of a deployment: one run, described by the Flower run's configuration."""

import json
import re
import tomllib
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
from flwr.app import ConfigRecord, Context, RecordDict
from flwr.app.user_config import UserConfig

from edge_client import own_training
from edge_client.gateway import site as gateway_site
from edge_client.sensing import conditions
from models.wire.rounds import DEVICES_RECORD, RECEIPT_MESSAGE
from privacy import CountChannel, read_ledger
from server.deployed_run import deployed_run
from server.engine.rounds import RoundsError
from server.engine.run_configuration import UNSAID
from server.engine.training_recipes import FROM_TRAINED_WEIGHTS
from server.flower_app import app
from server.plans.plan_file import require_same_plan
from server.signer import make_key_file
from tests.support.federated_rounds import contribution, task_of
from tests.support.flower_grid import GridInMemory
from tests.support.operator_keys import make_stream_key_file
from tests.support.stream_policies import stream_policy
from tests.support.system_parts import REPOSITORY

DECLARED = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["tool"]["flwr"]["app"][
    "config"
]


def config_in(folder):
    np.savez(folder / "start.npz", weights=np.zeros(3, np.float32))
    make_key_file(folder / "policy.pem")
    make_stream_key_file(folder / "stream.operator")
    return DECLARED | {
        "stream-key-file": str(folder / "stream.operator"),
        "policy-key": str(folder / "policy.pem"),
        "privacy-home": str(folder / "home"),
        "start-weights": str(folder / "start.npz"),
        "out": str(folder / "run"),
        "rounds": 2,
        "cohort": 2,
        "delta": 1e-6,
    }


@pytest.fixture
def run_config(tmp_path):
    return config_in(tmp_path)


def node(message):
    """A node with two devices, both of which send zeros."""
    if message.metadata.message_type == "query":
        number = message.metadata.dst_node_id
        names = {"device_ids": [f"{number}-a", f"{number}-b"]}
        return [RecordDict({DEVICES_RECORD: ConfigRecord(names)})]
    if message.metadata.message_type == RECEIPT_MESSAGE:
        return [RecordDict()]
    task = task_of(message)
    zeros = np.zeros(3, np.int64)
    facts = {"stream": task.stream, "index": task.index, "num_devices": len(task.device_ids)}
    return [contribution(zeros, **facts)]


def context_of(run_config):
    return Context(
        run_id=1,
        node_id=1,
        node_config=UserConfig(),
        state=RecordDict(),
        run_config=run_config,
    )


class NotingReads(dict):
    """A configuration that notes which of its keys are read."""

    def __init__(self, values):
        super().__init__(values)
        self.read = set()

    def get(self, key, *otherwise):
        self.read.add(key)
        return super().get(key, *otherwise)


@dataclass(frozen=True, slots=True)
class FinishedRun:
    """A run over two nodes to its end: its folder, what it sent, and which keys it read."""

    folder: Path
    grid: GridInMemory
    read: frozenset[str]


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    base = tmp_path_factory.mktemp("finished")
    noting, grid = NotingReads(config_in(base)), GridInMemory({1: node, 2: node})
    app(grid=grid, context=context_of(noting))
    return FinishedRun(base / "run", grid, frozenset(noting.read))


def test_flower_lets_through_exactly_the_keys_that_a_run_reads(finished):
    assert finished.read == set(DECLARED)


def test_described_keys_and_defaults_are_those_declared():
    described = re.findall(r"`([a-z-]+)`\s+\(([^):;]+)", deployed_run.__doc__)
    texts = {"required", "optional"}

    assert {key: "" if text in texts else float(text) for key, text in described} == DECLARED


def test_reference_lists_every_key_of_runs_and_nodes():
    def listed(heading):
        reference = (REPOSITORY / "docs" / "reference" / "settings.md").read_text()
        section = reference.partition(heading)[2].partition("\n## ")[0]
        rows = re.findall(r"^\| (`.+?`) \|", section, re.MULTILINE)
        return {key for row in rows for key in re.findall(r"`([a-z-]+)`", row)}

    assert listed("## A deployed run: `flwr run --run-config`") == set(DECLARED)
    of_node = {
        value
        for module in (own_training, conditions, gateway_site)
        for name, value in vars(module).items()
        if name.endswith("_KEY")
    }
    of_command = {"superlink", "app-pin"}
    assert listed("## A node in rounds: `[node]`") == of_node | of_command


def test_a_deployed_run_trains_as_rounds_from_trained_weights_do(run_config):
    config = deployed_run(run_config).config

    assert config.clipping_norm == FROM_TRAINED_WEIGHTS.clipping_norm
    assert (config.recipe, config.server) == (
        FROM_TRAINED_WEIGHTS.local,
        FROM_TRAINED_WEIGHTS.server,
    )


def test_run_over_nodes_that_name_their_devices(finished):
    report = json.loads((finished.folder / "run.json").read_text(encoding="utf-8"))
    assert report["status"] == "finished"
    # Of four devices 1-a and 2-a never train, whatever the schedule.
    assert report["schedule"]["population_size"] == 2
    # 85 % of μ² for updates: √0.85 of the μ that ε = 2 allows, by the closed form.
    assert report["privacy"]["epsilon_release"] == pytest.approx(1.830017, rel=1e-6)
    ledger = finished.folder.parent / "home" / "ledger.jsonl"
    entries = read_ledger(ledger.read_text(encoding="ascii"))
    assert [entry.kind for entry in entries] == ["stream", "stream"]
    # Nobody sent anything: what moved the weights is noise, and it is there.
    weights = np.load(finished.folder / "weights.npz", allow_pickle=False)["weights"]
    assert np.abs(weights).min() > 0


def test_devices_that_never_train_are_not_invited_and_a_run_says_what_it_did_not_ask(finished):
    tasks = [task_of(m) for m in finished.grid.pushed if m.metadata.message_type == "train"]
    assert {name for task in tasks for name in task.device_ids} == {"1-b", "2-b"}
    told = json.loads((finished.folder / "counts.json").read_text(encoding="utf-8"))
    assert told["releases"] == []
    assert set(told["not_asked"]) == {"metrics", "drift", "similar_devices"}
    assert "model-version" in told["not_asked"]["metrics"]


def test_a_policy_names_counts_exactly_where_updates_leave_budget_for_them(run_config):
    def channels(**changes):
        config = deployed_run(run_config | changes).config
        return config.terms(config.schedule(100)).policy.channels

    assert {channel.name for channel in channels()} == {"metrics", "drift", "similar_devices"}
    assert channels(**{"out": f"{run_config['out']}-2", "update-share": 1.0}) == ()


def plan_file(tmp_path, **constants):
    plan = stream_policy(stream="planned", num_rounds=3, cohort_size=1, separation=2, **constants)
    named = replace(
        plan, channels=(CountChannel(name="drift", noise_multiplier=99, max_answers=1),)
    )
    (tmp_path / "policy.json").write_bytes(named.to_bytes())
    return named, {"plan": str(tmp_path / "policy.json")}


@pytest.mark.slow
def test_a_plan_is_carried_out_to_the_last_constant(run_config, tmp_path):
    plan, key = plan_file(tmp_path, participations=2)
    said = {"rounds": DECLARED["rounds"], "cohort": DECLARED["cohort"], "delta": DECLARED["delta"]}
    run_config |= said | key
    app(grid=GridInMemory({1: node, 2: node}), context=context_of(run_config))

    report = json.loads((tmp_path / "run" / "run.json").read_text(encoding="utf-8"))
    assert report["privacy"]["policy"] == json.loads(plan.to_bytes())
    assert (report["status"], len(report["rounds"])) == ("finished", 3)
    again = deployed_run(run_config | {"out": str(tmp_path / "second")})
    assert again.config.stream.startswith("run-")
    elsewhere = {"out": str(tmp_path / "third"), "privacy-home": str(tmp_path / "other home")}
    assert deployed_run(run_config | elsewhere).config == replace(again.config, stream="planned")


def test_what_contradicts_a_plan_is_refused_by_name(run_config, tmp_path):
    _, key = plan_file(tmp_path)
    with pytest.raises(RoundsError, match="rounds is 2, and the plan says 3; leave rounds out"):
        deployed_run(run_config | key)


def test_a_run_goes_on_under_its_own_plan_alone():
    plan = stream_policy(stream="planned")
    require_same_plan(plan, replace(plan, stream="run-1"))
    for other in (None, stream_policy(stream="planned", cohort_size=99)):
        with pytest.raises(RoundsError, match="was planned otherwise"):
            require_same_plan(plan, other)


def test_a_fleet_too_small_for_a_plan_is_told_so_before_anyone_is_asked(run_config, tmp_path):
    _, key = plan_file(tmp_path)
    said = {"rounds": DECLARED["rounds"], "cohort": DECLARED["cohort"], "delta": DECLARED["delta"]}
    with pytest.raises(RoundsError, match="takes 2 devices that train, and 1 are enrolled"):
        app(grid=GridInMemory({1: node}), context=context_of(run_config | said | key))


@pytest.mark.parametrize("content", [b"", b"[]", b'{"stream": "s"}', b"\xff"])
def test_a_file_that_is_no_plan_is_refused(run_config, tmp_path, content):
    (tmp_path / "policy.json").write_bytes(content)
    with pytest.raises(RoundsError, match=r"policy\.json: holds no policy of a stream"):
        deployed_run(run_config | {"plan": str(tmp_path / "policy.json")})


def test_what_nobody_said_is_what_flower_fills_in():
    assert {key: DECLARED[key] for key in UNSAID} == UNSAID


@pytest.mark.parametrize(
    "key", ["out", "start-weights", "policy-key", "stream-key-file", "privacy-home"]
)
def test_missing_key_is_named_with_what_to_add(run_config, key):
    run_config[key] = DECLARED[key]
    with pytest.raises(RoundsError, match=f"lacks '{key}'; add --run-config"):
        deployed_run(run_config)


def test_impossible_value_is_refused(run_config):
    config = deployed_run({**run_config, "delta": 2.0}).config
    with pytest.raises(ValueError, match="delta must lie in"):
        config.policy(config.schedule(10))
