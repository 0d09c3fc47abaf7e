"""The ClientApp: which devices are here, one sum for a task, and nothing else in the reply."""

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, ConfigRecord, Message, MessageType, RecordDict
from flwr.common.constant import ErrorCode
from flwr.supercore.task_identity import TaskIdentity

from edge_client.errors import InputMissingError, StoreError
from edge_client.flower_app import client_app
from edge_client.local_training import TrainingPath, local_trainer, train_on_device
from models.training.local_epochs import new_flat_weights
from models.wire.rounds import (
    CONTRIBUTION_RECORD,
    DEVICES_RECORD,
    FLAT_ARRAY,
    SUM_RECORD,
    TASK_RECORD,
    WEIGHTS_RECORD,
    LocalRecipe,
    NodeFailure,
    RoundTask,
)
from privacy import UpdateGrid
from simulations.seeded_noise import SeededNoise
from tests.support.made_up_rows import made_up_rows

RECIPE = LocalRecipe(record_noise_multiplier=0.0)
WEIGHTS = new_flat_weights(seed=1)


class Block:
    """Three devices with made-up rows; the third has too few."""

    device_ids = ("a", "b", "c")

    def rows(self, device_id):
        return made_up_rows(50 if device_id == "c" else 200, seed=ord(device_id))

    def source(self, device_id, *, stream, index):
        return SeededNoise(1, stream, device_id, index)


@pytest.fixture
def app():
    TaskIdentity.run_id, TaskIdentity.node_id, TaskIdentity.task_id = 1, 1, 1
    return client_app(lambda _: Block())


def asked(app, message_type, content):
    message = Message(content, dst_node_id=2, message_type=message_type)
    return app(message=message, context=None)


def task_message(device_ids):
    task = RoundTask(
        stream="s",
        index=4,
        clipping_norm=0.5,
        cohort_size=10,
        device_ids=device_ids,
        recipe=RECIPE,
    )
    content = RecordDict({WEIGHTS_RECORD: ArrayRecord({FLAT_ARRAY: Array(WEIGHTS)})})
    content[TASK_RECORD] = ConfigRecord({**task.to_plain()})
    return content


def test_query_is_answered_with_the_devices_behind_the_node(app):
    reply = asked(app, MessageType.QUERY, RecordDict())
    assert reply.content.config_records[DEVICES_RECORD]["device_ids"] == ["a", "b", "c"]


def test_task_is_answered_with_the_sum_over_the_invited_devices(app):
    reply = asked(app, MessageType.TRAIN, task_message(("a", "c")))
    total = reply.content.array_records[SUM_RECORD][FLAT_ARRAY].numpy()
    grid, block = UpdateGrid(clipping_norm=0.5), Block()
    expected = train_on_device(
        local_trainer(RECIPE),
        block.rows("a"),
        weights=WEIGHTS,
        grid=grid,
        source=block.source("a", stream="s", index=4),
    )
    assert total.dtype == np.int64
    assert np.array_equal(total, expected)


def test_nothing_leaves_beside_sum_step_and_number_of_invited_devices(app):
    reply = asked(app, MessageType.TRAIN, task_message(("a", "c")))
    content = reply.content
    assert set(content) == {SUM_RECORD, CONTRIBUTION_RECORD}
    assert list(content.array_records[SUM_RECORD]) == [FLAT_ARRAY]
    assert dict(content.config_records[CONTRIBUTION_RECORD]) == {
        "schema_version": 1,
        "stream": "s",
        "index": 4,
        "num_devices": 2,
        "receipts": [],
    }


def test_task_for_a_device_that_is_not_here_is_refused(app):
    reply = asked(app, MessageType.TRAIN, task_message(("a", "z")))
    assert reply.error.reason == NodeFailure.TASK_REFUSED


@pytest.mark.parametrize("missing", [TASK_RECORD, WEIGHTS_RECORD])
def test_task_that_is_none_is_refused(app, missing):
    content = task_message(("a",))
    del content[missing]
    assert asked(app, MessageType.TRAIN, content).error.reason == NodeFailure.TASK_REFUSED


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (StoreError("/home/ada/device.db", "is damaged", "init"), NodeFailure.STORE_UNUSABLE),
        (InputMissingError("/home/ada", "missing", "start"), NodeFailure.MISCONFIGURED),
        (ModuleNotFoundError("/home/ada/torch"), NodeFailure.PART_MISSING),
        (MemoryError("/home/ada"), NodeFailure.OUT_OF_MEMORY),
        (ValueError("2437.5 mAh in /home/ada/device.db"), NodeFailure.OTHER),
    ],
    ids=lambda value: getattr(value, "name", type(value).__name__),
)
@pytest.mark.parametrize("message_type", [MessageType.QUERY, MessageType.TRAIN])
def test_of_a_failure_only_its_code_leaves(app, caplog, error, code, message_type):
    def broken(_context):
        raise error

    reply = asked(client_app(broken), message_type, task_message(("a",)))

    assert (reply.error.reason, reply.has_content()) == (code.value, False)
    assert str(error) in caplog.text


def test_clients_own_error_reply_has_flowers_code(app):
    reply = asked(app, MessageType.TRAIN, task_message(("z",)))
    assert reply.error.code == ErrorCode.CLIENT_APP_RAISED_EXCEPTION


@pytest.mark.slow
@pytest.mark.parametrize("path", list(TrainingPath))
def test_a_block_trains_on_the_path_that_it_names(path):
    TaskIdentity.run_id, TaskIdentity.node_id, TaskIdentity.task_id = 1, 1, 1
    block = Block()
    block.training_path = path
    reply = asked(client_app(lambda _: block), MessageType.TRAIN, task_message(("a",)))

    expected = {
        each: train_on_device(
            local_trainer(RECIPE, path=each),
            block.rows("a"),
            weights=WEIGHTS,
            grid=UpdateGrid(clipping_norm=0.5),
            source=block.source("a", stream="s", index=4),
        )
        for each in TrainingPath
    }
    total = reply.content.array_records[SUM_RECORD][FLAT_ARRAY].numpy()
    # Both paths agree but for rounding in float32, which the grid shows.
    same = [each for each, update in expected.items() if np.array_equal(update, total)]
    assert same == [path]
