"""A fleet behind Flower's messages: blocks equal their devices, and lies take their form."""

import threading
from dataclasses import replace

import numpy as np
import pytest

from edge_client.local_training import local_trainer, train_on_device
from models.training.local_epochs import new_flat_weights
from models.wire.rounds import LocalRecipe, RoundTask
from privacy import UpdateGrid
from server.engine.exchange import exchange
from server.engine.flower_messages import Roster, ask_for_devices, task_messages
from simulations.fleet_faults import Fault, FaultPlan, Lies
from simulations.hostile_fleet import FleetAtWork, FleetGrid, forged, task_of
from simulations.seeded_noise import SeededNoise
from tests.support.small_fleet import SmallFleet

NUM_DEVICES, NUM_ROWS = 12, 30
RECIPE = LocalRecipe(least_rows=20, expected_batch_size=10)
WEIGHTS = new_flat_weights(seed=1)
GRID = UpdateGrid(clipping_norm=0.5)


FLEET = SmallFleet(NUM_DEVICES, NUM_ROWS)


def task_for(device_ids, *, index=0):
    return RoundTask(
        stream="s",
        index=index,
        clipping_norm=0.5,
        cohort_size=NUM_DEVICES,
        device_ids=tuple(device_ids),
        recipe=RECIPE,
    )


def replies_of(faults, *, devices_a_node=1, index=0, grid=None, deadline_s=0.3):
    grid = grid or FleetGrid(FleetAtWork(FLEET, faults, 1), devices_a_node=devices_a_node)
    roster = ask_for_devices(
        grid,
        num_nodes=len(grid.get_node_ids()),
        deadline_s=5.0,
        stop=threading.Event(),
    )
    tasks = {
        node: task_for(names, index=index)
        for node, names in roster.behind(FLEET.device_ids).items()
    }
    messages = task_messages(tasks, weights=WEIGHTS)
    stop = threading.Event()
    return tasks, list(exchange(grid, messages, deadline_s=deadline_s, stop=stop, poll_s=0.001))


def sum_of(reply):
    return reply.content.array_records["sum"]["flat"].numpy()


def test_an_honest_device_sends_what_a_real_devices_code_would():
    work = FleetAtWork(FLEET, FaultPlan(), 1)
    for number, name in enumerate(FLEET.device_ids[:3]):
        alone = train_on_device(
            local_trainer(RECIPE),
            FLEET.raw.take(FLEET.raw.device == number),
            weights=WEIGHTS,
            grid=GRID,
            source=SeededNoise(1, "device", name, 0),
        )
        total, num_devices = work.answer(task_for([name]), WEIGHTS)
        assert num_devices == 1
        assert np.array_equal(total, alone)


@pytest.mark.parametrize("lies", list(Lies))
def test_a_block_sends_the_sum_of_its_devices_alone(lies):
    faults = FaultPlan(
        seed=2,
        dropout=0.2,
        late=0.1,
        poisoned=0.6,
        poisons=(Fault.SCALED, Fault.SIGN_FLIPPED, Fault.LABEL_FLIPPED, Fault.NAN),
        lies=lies,
    )
    work = FleetAtWork(FLEET, faults, 1)
    whole, present = work.answer(task_for(FLEET.device_ids), WEIGHTS)
    alone = [work.answer(task_for([name]), WEIGHTS) for name in FLEET.device_ids]
    assert np.array_equal(whole, sum(total for total, _ in alone))
    assert 0 < present < NUM_DEVICES
    assert present == sum(count for _, count in alone)


@pytest.mark.parametrize("devices_a_node", [1, 5])
def test_training_ahead_changes_no_bit(devices_a_node):
    faults = FaultPlan(seed=3, poisoned=0.3)
    _, replies = replies_of(faults, devices_a_node=devices_a_node)
    work = FleetAtWork(FLEET, faults, 1)
    whole, _ = work.answer(task_for(FLEET.device_ids), WEIGHTS)
    assert np.array_equal(whole, sum(sum_of(reply) for reply in replies))


def test_liars_past_the_clipping_send_the_longest_update_that_the_server_takes():
    name = FLEET.device_ids[0]
    faults = FaultPlan(poisoned=1.0, poisons=(Fault.SIGN_FLIPPED,), lies=Lies.PAST_CLIPPING)
    total, _ = FleetAtWork(FLEET, faults, 1).answer(task_for([name]), WEIGHTS)
    assert GRID.sum_is_possible(total, num_devices=1)
    assert np.linalg.norm(GRID.restore(total)) == pytest.approx(0.5, rel=1e-8)
    honest = replace(faults, poisoned=0.0)
    silent = replace(task_for([name]), recipe=replace(RECIPE, record_noise_multiplier=0.0))
    without_noise, _ = FleetAtWork(FLEET, honest, 1).answer(silent, WEIGHTS)
    direction = np.dot(GRID.restore(total), GRID.restore(without_noise))
    assert direction < 0


def test_absent_nodes_say_nothing_and_late_ones_come_with_the_next_step():
    faults = FaultPlan(seed=5, dropout=0.3, late=0.3)
    grid = FleetGrid(FleetAtWork(FLEET, faults, 1))
    _, replies = replies_of(faults, grid=grid)
    said = {faults.absence(name, index=0): name for name in FLEET.device_ids}
    assert {*said} == {None, Fault.DROPOUT, Fault.LATE}
    in_time = [name for name in FLEET.device_ids if faults.absence(name, index=0) is None]
    assert len(replies) == len(in_time)


def test_flower_answers_for_nodes_that_it_noticed_are_gone():
    faults = FaultPlan(seed=5, dropout=0.6, noticed=1.0)
    _, replies = replies_of(faults)
    gone = [name for name in FLEET.device_ids if faults.absence(name, index=0)]
    assert len(replies) == NUM_DEVICES
    assert sum(reply.has_error() for reply in replies) == len(gone) > 0


@pytest.mark.parametrize("fault", [Fault.SIGN_FLIPPED, Fault.ZEROS])
def test_possible_lies_keep_their_form(fault):
    _, (reply, *_) = replies_of(FaultPlan())
    sent = forged(reply.content, fault, scale=100.0)
    total = sent.array_records["sum"]["flat"].numpy()
    wanted = -sum_of(reply) if fault is Fault.SIGN_FLIPPED else np.zeros_like(sum_of(reply))
    assert np.array_equal(total, wanted)
    assert GRID.sum_is_possible(total, num_devices=1)


def test_a_task_is_read_as_it_was_sent():
    roster = Roster.of({1: ["a"]})
    assert roster.device_ids == ("a",)
    (message,) = task_messages({1: task_for(["a"])}, weights=WEIGHTS)
    task, weights = task_of(message)
    assert task == task_for(["a"])
    assert np.array_equal(weights, WEIGHTS)
