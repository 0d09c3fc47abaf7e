"""A task of yesterday's server means what it meant, and says nothing of its deadline."""

import json

from models.wire.rounds import RoundTask
from tests.golden.make_round_task import FILE, task


def test_a_recorded_task_means_what_it_meant():
    values = json.loads(FILE.read_bytes())
    assert RoundTask.from_plain(values) == task()
    assert RoundTask.from_plain(values).deadline_s == 0.0
    assert task().to_plain() == values
