import pytest

from server.engine.early_stop import is_over, looks_without_gain


@pytest.mark.parametrize(
    ("qualities", "looks"),
    [
        ([], 0),
        ([0.5], 0),
        ([0.5, 0.6, 0.7], 0),
        ([0.5, 0.7, 0.6, 0.65], 2),
        ([0.5, 0.7, 0.7], 1),
        ([0.5, None, 0.4, None, 0.3, 0.9], 0),
        ([0.5, None, 0.4, None, 0.3], 2),
        ([0.5, float("nan")], 1),
        ([float("nan"), 0.1], 0),
    ],
)
def test_looks_are_counted_since_the_best_one(qualities, looks):
    assert looks_without_gain(qualities) == looks


def test_run_stops_after_so_many_looks_without_gain_and_never_without_patience():
    falling = [0.9, 0.8, 0.7, 0.6]
    assert is_over(falling, patience=3)
    assert not is_over(falling, patience=4)
    assert not is_over(falling * 50, patience=0)


def test_a_gain_begins_the_count_anew():
    assert not is_over([0.9, 0.8, 0.7, 0.91, 0.8], patience=2)
