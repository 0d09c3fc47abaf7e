"""Replies judged alone, exact sums, and a divisor that nobody who stays away can change."""

import numpy as np
import pytest

from models.wire.rounds import Contribution, LocalRecipe, RoundTask
from privacy import UpdateGrid, clip_update
from server.engine.aggregation import CohortSum, ReplyRefusal, mean_update, reply_refusal

GRID = UpdateGrid(clipping_norm=2.0)
TASK = RoundTask(
    stream="s",
    index=3,
    clipping_norm=2.0,
    cohort_size=10,
    device_ids=("a", "b", "c"),
    recipe=LocalRecipe(),
)
ONE = GRID.quantise(clip_update(np.array([3.0, 4.0]), clipping_norm=2.0))


def judged(total, *, stream="s", index=3, num_devices=3):
    contribution = Contribution(stream=stream, index=index, num_devices=num_devices)
    return reply_refusal(total, contribution, task=TASK, num_weights=2, grid=GRID)


def test_good_reply_passes():
    assert judged(3 * ONE) is None
    assert judged(0 * ONE) is None


@pytest.mark.parametrize(
    ("total", "facts", "reason"),
    [
        (ONE, {"stream": "other"}, ReplyRefusal.WRONG_STREAM),
        (ONE, {"index": 2}, ReplyRefusal.WRONG_STEP),
        (ONE, {"num_devices": 4}, ReplyRefusal.TOO_MANY_DEVICES),
        (ONE, {"num_devices": -1}, ReplyRefusal.TOO_MANY_DEVICES),
        (ONE.astype(np.float64), {}, ReplyRefusal.WRONG_TYPE),
        (ONE.astype(np.int32), {}, ReplyRefusal.WRONG_TYPE),
        (ONE.reshape(1, 2), {}, ReplyRefusal.WRONG_SHAPE),
        (np.zeros(3, np.int64), {}, ReplyRefusal.WRONG_SHAPE),
        (4 * ONE, {}, ReplyRefusal.BEYOND_BOUND),
        (ONE, {"num_devices": 0}, ReplyRefusal.BEYOND_BOUND),
        (np.full(2, -(2**63)), {}, ReplyRefusal.BEYOND_BOUND),
    ],
)
def test_bad_reply_is_refused_with_its_reason(total, facts, reason):
    assert judged(total, **facts) == reason


def test_a_device_that_is_missing_changes_the_sum_and_not_the_divisor():
    noise = np.zeros(2)
    everyone = mean_update(3 * ONE, noise=noise, num_invited=3, grid=GRID)
    without_one = mean_update(2 * ONE, noise=noise, num_invited=3, grid=GRID)
    assert everyone == pytest.approx([1.2, 1.6], rel=1e-6)
    assert without_one == pytest.approx([0.8, 1.6 * 2 / 3], rel=1e-6)


def test_noise_is_added_to_the_sum_once():
    update = mean_update(0 * ONE, noise=np.array([5.0, -10.0]), num_invited=5, grid=GRID)
    assert update == pytest.approx([1.0, -2.0])


def test_refused_replies_are_counted_by_reason():
    cohort_sum = CohortSum.empty(2)
    cohort_sum.add(ONE, num_devices=1)
    cohort_sum.refuse(ReplyRefusal.FAILED)
    cohort_sum.refuse(ReplyRefusal.FAILED)
    assert (cohort_sum.num_replied, cohort_sum.refused) == (1, {ReplyRefusal.FAILED: 2})
    assert np.array_equal(cohort_sum.total, ONE)
