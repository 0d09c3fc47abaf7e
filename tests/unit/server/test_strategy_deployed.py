"""The ServerApp of a deployment: one run, described by the Flower run's configuration."""

import json
import re
import tomllib

import numpy as np
import pytest
from flwr.app import ConfigRecord, Context, RecordDict
from flwr.app.user_config import UserConfig

from models.wire.rounds import DEVICES_RECORD, RECEIPT_MESSAGE
from privacy import read_ledger
from server.flower_app import app, deployed_run
from server.rounds import RoundsError
from server.signer import make_key_file
from server.training_recipes import FROM_TRAINED_WEIGHTS
from tests.support.flower_grid import GridInMemory
from tests.support.system_parts import REPOSITORY
from tests.unit.server.test_strategy import contribution, task_of

DECLARED = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["tool"]["flwr"]["app"][
    "config"
]


@pytest.fixture
def run_config(tmp_path):
    np.savez(tmp_path / "start.npz", weights=np.zeros(3, np.float32))
    make_key_file(tmp_path / "policy.pem")
    return DECLARED | {
        "policy-key": str(tmp_path / "policy.pem"),
        "start-weights": str(tmp_path / "start.npz"),
        "out": str(tmp_path / "run"),
        "rounds": 2,
        "cohort": 2,
        "delta": 1e-6,
    }


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


def test_flower_lets_through_exactly_the_keys_that_a_run_reads(run_config):
    noting = NotingReads(run_config)
    app(grid=GridInMemory({1: node, 2: node}), context=context_of(noting))

    assert noting.read == set(DECLARED)


def test_described_keys_and_defaults_are_those_declared():
    described = re.findall(r"`([a-z-]+)`\s+\(([^):;]+)", deployed_run.__doc__)
    texts = {"required", "optional"}

    assert {key: "" if text in texts else float(text) for key, text in described} == DECLARED


def test_a_deployed_run_trains_as_rounds_from_trained_weights_do(run_config):
    config = deployed_run(run_config).config

    assert config.clipping_norm == FROM_TRAINED_WEIGHTS.clipping_norm
    assert (config.recipe, config.server) == (
        FROM_TRAINED_WEIGHTS.local,
        FROM_TRAINED_WEIGHTS.server,
    )


def test_run_over_nodes_that_name_their_devices(run_config, tmp_path):
    app(grid=GridInMemory({1: node, 2: node}), context=context_of(run_config))

    report = json.loads((tmp_path / "run" / "run.json").read_text(encoding="utf-8"))
    assert report["status"] == "finished"
    assert report["schedule"]["population_size"] == 4
    # 85 % of μ² for updates: √0.85 of the μ that ε = 2 allows, by the closed form.
    assert report["privacy"]["epsilon_release"] == pytest.approx(1.830017, rel=1e-6)
    entries = read_ledger((tmp_path / "run" / "ledger.jsonl").read_text(encoding="ascii"))
    assert [entry.kind for entry in entries] == ["stream", "stream"]
    # Nobody sent anything: what moved the weights is noise, and it is there.
    weights = np.load(tmp_path / "run" / "weights.npz", allow_pickle=False)["weights"]
    assert np.abs(weights).min() > 0


@pytest.mark.parametrize("key", ["out", "start-weights", "policy-key"])
def test_missing_key_is_named_with_what_to_add(run_config, key):
    run_config[key] = DECLARED[key]
    with pytest.raises(RoundsError, match=f"lacks '{key}'; add --run-config"):
        deployed_run(run_config)


def test_impossible_value_is_refused(run_config):
    config = deployed_run({**run_config, "delta": 2.0}).config
    with pytest.raises(ValueError, match="delta must lie in"):
        config.policy(config.schedule(10))
