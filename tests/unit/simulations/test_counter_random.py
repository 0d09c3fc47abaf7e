import numpy as np
import pytest

from simulations.counter_random import _GAMMA, Channel, KeyedRandom, _mix


def random_of(indices, seed=1):
    return KeyedRandom(seed=seed, device_indices=np.asarray(indices, np.int64))


def test_hash_gives_the_published_sequence_of_splitmix64():
    positions = np.arange(1, 6, dtype=np.uint64)

    drawn = _mix(np.array([1234567], np.uint64) + positions * _GAMMA)

    assert drawn.tolist() == [
        6457827717110365317,
        3203168211198807973,
        9817491932198370423,
        4593380528125082431,
        16408922859458223821,
    ]


def test_numbers_of_a_device_do_not_depend_on_its_neighbours():
    many, alone = random_of(range(100)), random_of([7])
    days = np.arange(50)[:, None]

    for draw in ("uniform", "normal", "exponential", "bits"):
        whole = getattr(many, draw)(Channel.WEATHER, days)
        assert np.array_equal(whole[:, [7]], getattr(alone, draw)(Channel.WEATHER, days))
    part = many.of_devices(np.array([7, 3]))
    assert part.uniform(Channel.CELL, 5)[0] == alone.uniform(Channel.CELL, 5)[0]


def test_seed_channel_counter_and_device_all_matter():
    base = random_of([4]).bits(Channel.CELL, 9)[0]

    others = [
        random_of([4], seed=2).bits(Channel.CELL, 9)[0],
        random_of([5]).bits(Channel.CELL, 9)[0],
        random_of([4]).bits(Channel.OWNER, 9)[0],
        random_of([4]).bits(Channel.CELL, 10)[0],
    ]

    assert len({base, *others}) == 5


def test_each_device_has_its_own_counter():
    drawn = random_of([1, 2]).bits(Channel.CELL, np.array([3, 8]))

    assert drawn[0] == random_of([1]).bits(Channel.CELL, 3)[0]
    assert drawn[1] == random_of([2]).bits(Channel.CELL, 8)[0]


def test_moments_are_those_of_the_distributions():
    """200,000 numbers; bounds are five standard errors, a false alarm in about a million runs."""
    random = random_of(range(2000), seed=3)
    counter = np.arange(100)[:, None]
    uniform = random.uniform(Channel.CELL, counter)
    normal = random.normal(Channel.OWNER, counter)
    exponential = random.exponential(Channel.WEATHER, counter)

    assert uniform.min() > 0.0
    assert uniform.max() < 1.0
    assert uniform.mean() == pytest.approx(0.5, abs=5 * 0.2887 / 447)
    assert normal.mean() == pytest.approx(0.0, abs=5 / 447)
    assert normal.std() == pytest.approx(1.0, abs=5 * 0.7071 / 447)
    assert (normal**4).mean() == pytest.approx(3.0, abs=5 * 9.8 / 447)
    assert exponential.mean() == pytest.approx(1.0, abs=5 / 447)
    neighbours = np.corrcoef(normal[:, :-1].ravel(), normal[:, 1:].ravel())[0, 1]
    next_day = np.corrcoef(normal[:-1].ravel(), normal[1:].ravel())[0, 1]
    assert abs(neighbours) < 5 / 447
    assert abs(next_day) < 5 / 447


@pytest.mark.parametrize("seed", [-1, 2**64])
def test_seed_outside_64_bits_is_refused(seed):
    with pytest.raises(ValueError, match="seed must be between"):
        random_of([0], seed=seed)
