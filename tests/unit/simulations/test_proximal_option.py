"""`rounds start --proximal MU`, and the key `proximal` of a deployed run."""

import threading
import tomllib

import numpy as np
import pytest
from flwr.app import ConfigRecord, RecordDict

from models.training.local_epochs import new_flat_weights
from models.wire.rounds import DEVICES_RECORD
from server.engine.flower_messages import ask_for_devices
from server.engine.run_configuration import planned_rounds
from server.flower_app import PlannedRun, carry_out
from server.runs.folder import RunFolder
from simulations.commands.rounds_carrying import command_record, options_from
from simulations.rounds_recipes import plan_for
from tests.support.command_line import fedcell
from tests.support.federated_rounds import NOW, contribution, task_of
from tests.support.flower_grid import GridInMemory
from tests.support.system_parts import REPOSITORY

START = new_flat_weights(seed=1)
WARM = {
    "num_rounds": 1,
    "cohort_size": 1,
    "epsilon": 2.0,
    "delta": 1e-8,
    "is_record_private": True,
    "is_warm": True,
}
DECLARED = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["tool"]["flwr"]["app"][
    "config"
]


def test_plan_holds_devices_to_the_rounds_weights_and_their_policy_says_nothing_of_it():
    usual, held = plan_for(**WARM), plan_for(**WARM, proximal=2.5)
    assert (usual.recipe.proximal, held.recipe.proximal) == (0.0, 2.5)
    policies = [plan.config(1).terms(plan.config(1).schedule(1)).policy for plan in (usual, held)]
    assert policies[0].record == policies[1].record
    with pytest.raises(ValueError, match="proximal"):
        plan_for(**WARM, proximal=10.5)


@pytest.mark.parametrize(
    ("words", "parts"),
    [
        (("--bundle", "none", "--proximal", 0.5), ("takes one step",)),
        (("--proximal", 11), ("at most 10", "got 11")),
        (("--proximal", -1), ("--proximal",)),
    ],
)
def test_option_that_does_nothing_or_too_much_is_a_wrong_use(tmp_path, words, parts):
    start = ("rounds", "start", "--fleet", tmp_path, "--rounds", 1, "--out", tmp_path / "run")
    ran = fedcell(*start, *words)
    assert ran.code == 2
    assert all(part in ran.err for part in parts)
    assert not (tmp_path / "run").exists()


def test_run_that_was_started_with_it_goes_on_with_it(tmp_path):
    record = command_record({"fleet": tmp_path, "proximal": 1.5}, policy=None)
    options, _ = options_from(record, out=tmp_path, workers=None, as_json=False)
    assert options["proximal"] == 1.5
    of_yesterday = command_record({"fleet": tmp_path}, policy=None)
    options, _ = options_from(of_yesterday, out=tmp_path, workers=None, as_json=False)
    assert options["proximal"] == 0.0


def test_deployed_run_reads_its_key_and_its_devices_are_told():
    said = DECLARED | {"stream-key-file": "key", "proximal": 0.75}
    config, _ = planned_rounds(said)
    assert config.recipe.proximal == 0.75
    assert planned_rounds(said | {"proximal": 0.0})[0].recipe.proximal == 0.0
    with pytest.raises(ValueError, match="proximal"):
        planned_rounds(said | {"proximal": 11.0})


@pytest.mark.slow
def test_tasks_of_a_run_and_of_its_resumption_carry_it(tmp_path):
    asked = []

    def node(message):
        if message.metadata.message_type != "train":
            return [RecordDict({DEVICES_RECORD: ConfigRecord({"device_ids": ["one"]})})]
        task = task_of(message)
        asked.append(task.recipe)
        facts = {"stream": task.stream, "index": task.index, "num_devices": 1}
        return [contribution(np.zeros(len(START), np.int64), **facts)]

    plan = plan_for(**(WARM | {"num_rounds": 2, "epsilon": None}), proximal=2.5)
    grid, stop = GridInMemory({1: node}), threading.Event()
    run = PlannedRun(
        config=plan.config(1), folder=RunFolder(tmp_path / "run"), start=START, signing_key=None
    )
    roster = ask_for_devices(grid, num_nodes=1, deadline_s=1.0, stop=stop)
    carry_out(run, grid, roster=roster, stop=stop, clock=lambda: NOW)
    assert {recipe.proximal for recipe in asked} == {2.5}
    assert RunFolder(tmp_path / "run", is_resumed=True).config().recipe == plan.recipe
