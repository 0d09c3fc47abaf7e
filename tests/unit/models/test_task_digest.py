"""What names a task: server and device must agree on it for ever."""

import json
from dataclasses import replace
from hashlib import sha256

import numpy as np
import pytest

from models.wire.rounds import LocalRecipe, RoundTask, task_digest

WEIGHTS = np.array([0.5, -1.0, 3.25], np.float32)
TASK = RoundTask(
    stream="run-1",
    index=3,
    clipping_norm=0.3,
    cohort_size=5,
    device_ids=("BT-1", "BT-2"),
    recipe=LocalRecipe(),
    policy="signed",
    pseudonyms=("a" * 32, "b" * 32),
)


def test_digest_is_that_of_canonical_json_and_little_endian_weights():
    plain = {name: value for name, value in TASK.to_plain().items() if name != "pseudonyms"}
    line = json.dumps(plain, sort_keys=True, separators=(",", ":")).encode()
    assert task_digest(TASK, WEIGHTS) == sha256(line + b"\n" + WEIGHTS.tobytes()).hexdigest()


def test_digest_survives_the_way_over_plain_values_and_another_byte_order():
    read = RoundTask.from_plain(TASK.to_plain())
    assert task_digest(read, WEIGHTS.astype(">f4")) == task_digest(TASK, WEIGHTS)


def test_other_pseudonyms_ask_for_the_same_answer():
    assert task_digest(replace(TASK, pseudonyms=()), WEIGHTS) == task_digest(TASK, WEIGHTS)


@pytest.mark.parametrize(
    "changed",
    [
        {"stream": "run-2"},
        {"index": 4},
        {"clipping_norm": 0.30000001},
        {"cohort_size": 6},
        {"device_ids": ("BT-1",), "pseudonyms": ()},
        {"recipe": LocalRecipe(learning_rate=0.5)},
        {"policy": "signed by another"},
    ],
)
def test_whatever_else_differs_is_another_task(changed):
    assert task_digest(replace(TASK, **changed), WEIGHTS) != task_digest(TASK, WEIGHTS)


def test_weights_of_one_bit_more_are_another_task():
    other = np.nextafter(WEIGHTS, np.float32(9))
    assert task_digest(TASK, other) != task_digest(TASK, WEIGHTS)
