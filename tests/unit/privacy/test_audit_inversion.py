"""The inversion attack on gradients that are known in closed form."""

import numpy as np
import pytest

from privacy.audit.inversion import is_recovered, recovered_record

OUTPUTS, INPUTS = 24, 40
SEEN = np.arange(INPUTS) % 7 != 3


def update_of(record, *, seed=0, scale=1.0):
    """(δ aᵀ, δ), then the weights of later layers."""
    generator = np.random.default_rng(seed)
    delta = generator.normal(size=OUTPUTS)
    block = np.concatenate([np.outer(delta, record).ravel(), delta])
    return scale * np.concatenate([block, generator.normal(size=100)])


def record_of(seed=0):
    return np.where(SEEN, np.random.default_rng(seed).uniform(-1, 1, INPUTS), 0.0)


def attack(update):
    return recovered_record(update, outputs=OUTPUTS, inputs=INPUTS, seen=SEEN)


@pytest.mark.parametrize("scale", [1.0, -0.25, 1e-9, 1e6])
def test_record_is_read_out_of_an_update_of_any_scale(scale):
    record = record_of()

    found = attack(update_of(record, scale=scale))

    assert found == pytest.approx(record, abs=1e-9)
    assert is_recovered(found, record)


def test_record_is_read_out_through_a_little_noise_and_not_through_more():
    record = record_of(1)
    update = update_of(record)
    noise = np.random.default_rng(5).normal(size=len(update))

    assert is_recovered(attack(update + 1e-3 * noise), record)
    assert not is_recovered(attack(update + noise), record)


def test_what_the_network_does_not_see_is_not_guessed():
    update = update_of(np.random.default_rng(2).uniform(-1, 1, INPUTS))

    assert (attack(update)[~SEEN] == 0).all()


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_update_that_is_not_finite_gives_nothing(value):
    assert (attack(np.full(OUTPUTS * (INPUTS + 1), value)) == 0).all()


def test_update_of_zeros_recovers_nothing():
    found = attack(np.zeros(OUTPUTS * (INPUTS + 1)))

    assert np.isfinite(found).all()
    assert not is_recovered(found, record_of())


def test_record_counts_as_recovered_up_to_one_percent():
    truth = np.array([3.0, 4.0])

    assert is_recovered(truth + np.array([0.05, 0.0]), truth)
    assert not is_recovered(truth + np.array([0.051, 0.0]), truth)
