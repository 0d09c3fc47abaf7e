"""Server optimisers against their published update rules, written out."""

import numpy as np
import pytest

from server.engine.server_optimizer import OptimizerState, ServerRecipe, optimizer_step

UPDATES = [np.array([0.5, -1.0]), np.array([0.1, 2.0])]


def after_two_steps(recipe, rate):
    state = OptimizerState.start(np.array([1.0, 1.0], np.float32))
    for update in UPDATES:
        state = optimizer_step(state, update, recipe=recipe, rate=rate)
    return state


def test_fedavg_adds_the_mean_update():
    state = after_two_steps(ServerRecipe(optimizer="fedavg"), 0.5)
    assert state.weights == pytest.approx([1 + 0.5 * 0.6, 1 + 0.5 * 1.0])


def test_fedavgm_adds_up_momentum():
    state = after_two_steps(ServerRecipe(optimizer="fedavgm", momentum=0.9), 1.0)
    assert state.weights == pytest.approx([1 + 0.5 + (0.45 + 0.1), 1 - 1.0 + (-0.9 + 2.0)])


def test_fedadam_follows_kingma_and_ba_algorithm_1():
    recipe = ServerRecipe(optimizer="fedadam", momentum=0.9, second_momentum=0.99, tau=1e-3)
    weights, first, second = np.ones(2), np.zeros(2), np.zeros(2)
    for step, update in enumerate(UPDATES, start=1):
        first = 0.9 * first + 0.1 * update
        second = 0.99 * second + 0.01 * update**2
        unit = (first / (1 - 0.9**step)) / (np.sqrt(second / (1 - 0.99**step)) + 1e-3)
        weights = weights + 0.2 * unit
    assert after_two_steps(recipe, 0.2).weights == pytest.approx(weights)


def test_first_step_of_fedadam_is_the_rate_in_every_coordinate():
    state = OptimizerState.start(np.zeros(2, np.float32))
    moved = optimizer_step(state, UPDATES[0], recipe=ServerRecipe(), rate=0.06)
    assert moved.weights == pytest.approx([0.06, -0.06], rel=1e-4)
    assert np.array_equal(state.weights, np.zeros(2))


def test_rate_falls_from_its_start_to_its_final_share():
    recipe = ServerRecipe(learning_rate=0.1, final_rate=0.2)
    rates = [recipe.rate_at(index, num_rounds=5) for index in range(5)]
    assert rates == pytest.approx([0.1, 0.0882842712, 0.06, 0.0317157288, 0.02])
    assert recipe.rate_at(0, num_rounds=1) == pytest.approx(0.1)


def test_rate_rises_in_the_warm_up_and_then_falls():
    recipe = ServerRecipe(learning_rate=1.0, final_rate=0.2, warm_up=0.5)
    rates = [recipe.rate_at(index, num_rounds=8) for index in range(8)]
    assert rates[0] == pytest.approx(0.04)
    assert rates[2] == pytest.approx(0.52)
    assert rates[4] == pytest.approx(1.0)
    assert rates[7] == pytest.approx(0.2)
    assert rates[:5] == sorted(rates[:5])


def test_state_reads_back_from_a_checkpoint_bit_for_bit():
    state = after_two_steps(ServerRecipe(), 0.06)
    read = OptimizerState.from_arrays(state.to_arrays())
    assert read.steps == 2
    for name in ("weights", "first_moment", "second_moment"):
        assert np.array_equal(getattr(read, name), getattr(state, name))


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("optimizer", "sgd"),
        ("learning_rate", 0.0),
        ("tau", 0.0),
        ("momentum", 1.0),
        ("second_momentum", -0.1),
        ("final_rate", 0.0),
        ("warm_up", 1.0),
    ],
)
def test_meaningless_recipe_is_refused_by_name(name, value):
    with pytest.raises(ValueError, match=name):
        ServerRecipe(**{name: value})
