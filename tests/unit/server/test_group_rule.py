"""Groups of nodes, what a robust rule makes of their sums, and what its noise costs."""

import math

import numpy as np
import pytest

from models.wire.rounds import LocalRecipe
from server.engine.group_rule import (
    NodeGroups,
    group_rule_cost,
    robust_mean,
)
from server.engine.rounds import RoundsConfig

NUM_WEIGHTS = 3


def config_of(**changes):
    values = {
        "stream": "s",
        "num_rounds": 4,
        "cohort_size": 8,
        "clipping_norm": 1.0,
        "epsilon": 2.0,
        "delta": 1e-6,
        "recipe": LocalRecipe(),
        "noise": "independent",
        "group_rule": "median",
        "num_groups": 4,
    }
    return RoundsConfig(**(values | changes))


def test_every_node_is_in_one_group_and_groups_are_even():
    groups = NodeGroups.of([40, 10, 30, 20, 50, 10], num_groups=3)
    assert groups.group_of == {10: 0, 20: 1, 30: 2, 40: 0, 50: 1}
    invited = groups.invited({10: ["a", "b"], 40: ["c"], 20: ["d"]})
    assert invited.tolist() == [3, 1, 0]
    for wrong in (2, 6):
        with pytest.raises(ValueError, match="groups must number"):
            NodeGroups.of([1, 2, 3, 4, 5], num_groups=wrong)


def test_a_nodes_sum_stands_in_its_own_group_alone():
    groups = NodeGroups.of([1, 2, 3], num_groups=3)
    placed = groups.placed(2, np.array([5, 6, 7]))
    assert placed.reshape(3, -1).tolist() == [[0, 0, 0], [5, 6, 7], [0, 0, 0]]


@pytest.mark.parametrize("rule", ["median", "trimmed"])
def test_a_lying_group_moves_the_mean_and_not_the_robust_rule(rule):
    invited = np.array([2, 2, 2, 2])
    honest = np.tile([0.5, -0.25, 1.0], (4, 1))
    hostile = honest.copy()
    hostile[1] = -100.0
    sums = hostile * invited[:, None] / invited.sum()
    found = robust_mean(sums.reshape(-1), invited=invited, num_invited=8, rule=rule)
    assert found == pytest.approx([0.5, -0.25, 1.0])
    assert abs(hostile.mean(axis=0)[0]) > 20


def test_groups_of_other_sizes_count_alike_and_empty_ones_do_not():
    invited = np.array([1, 0, 3, 4])
    means = np.array([[1.0], [77.0], [2.0], [3.0]])
    sums = means * invited[:, None] / 8
    found = robust_mean(sums.reshape(-1), invited=invited, num_invited=8, rule="median")
    assert found == pytest.approx([2.0])


def test_the_cost_is_that_of_the_papers_median_and_grows_with_groups():
    costs = [
        group_rule_cost("median", num_groups=number, num_rounds=200, bands=20)
        for number in (4, 8, 16)
    ]
    assert costs[0].step < costs[1].step < costs[2].step
    assert costs[2].step == pytest.approx(math.sqrt(math.pi / 2 * 16), rel=0.05)
    assert costs[0].prefix_independent / costs[0].prefix_correlated == pytest.approx(3.06, abs=0.01)
    assert "against" in str(costs[0])
    assert costs[0].to_json()["prefix_noise"] == costs[0].prefix


def test_a_trimmed_mean_costs_less_than_a_median():
    trimmed = group_rule_cost("trimmed", num_groups=8, num_rounds=200, bands=20)
    median = group_rule_cost("median", num_groups=8, num_rounds=200, bands=20)
    assert trimmed.prefix < median.prefix


def test_the_rule_is_a_comparison_with_independent_noise():
    schedule = config_of().schedule(16)
    terms = config_of().terms(schedule)
    assert terms.is_comparison
    assert terms.size(NUM_WEIGHTS) == 4 * NUM_WEIGHTS
    assert config_of(group_rule="none").terms(schedule).size(NUM_WEIGHTS) == NUM_WEIGHTS
    with pytest.raises(ValueError, match="needs independent noise"):
        config_of(noise="correlated")


def test_one_participation_costs_what_it_costs_with_one_sum():
    schedule = config_of().schedule(16)
    grouped, usual = config_of().terms(schedule), config_of(group_rule="none").terms(schedule)
    assert grouped.cost == usual.cost
