"""Median or trimmed mean over groups of nodes: a robust rule to compare with, and what it costs.

The nodes of a run stand in public groups, each node and so each device in one. A step releases
every group's sum with noise of its own, so that one participation costs 1/σ², as with one sum; what
is taken of the noised group means, coordinate by coordinate, is post-processing and costs nothing
further. But each of G groups carries the noise that the whole cohort's sum would carry alone, and a
median destroys the correlation that lets the noise of a stream cancel: the rule takes independent
noise, and its runs are comparisons that no registry takes. The usual defence is clipping, weight 1
and the cap on participations (docs/explanation/threat-model.md).

Source: Yin et al. 2018, "Byzantine-Robust Distributed Learning" (median and trimmed mean).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Literal

import numpy as np

from privacy import OperatingSystemNoise
from privacy.banded_factor import prefix_sum_error

from ..streams.stream_terms import StreamTerms

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from numpy.typing import NDArray

GroupRuleName = Literal["none", "median", "trimmed"]
GROUP_RULES: Final[tuple[GroupRuleName, ...]] = ("none", "median", "trimmed")
LEAST_GROUPS: Final = 3
TRIMMED_SHARE: Final = 0.25
"""Of the groups, left out at either end of a trimmed mean."""
_DRAWS: Final = 50_000


@dataclass(frozen=True, slots=True, kw_only=True)
class GroupedTerms(StreamTerms):
    """The constants of a comparison whose sums are those of groups, one after the other.

    Attributes:
        num_groups: G.
    """

    num_groups: int

    def size(self, num_weights: int) -> int:
        """Number of entries of a step's sums."""
        return self.num_groups * num_weights


@dataclass(frozen=True, slots=True)
class NodeGroups:
    """Which group each node of a run is in: by its rank among all, in turn.

    Attributes:
        group_of: group of each node.
        num_groups: G.
    """

    group_of: Mapping[int, int]
    num_groups: int

    @staticmethod
    def of(node_ids: Iterable[int], *, num_groups: int) -> NodeGroups:
        """Spread nodes over groups, evenly and without looking at them.

        Args:
            node_ids: of all nodes of the run, in any order, repeated or not.
            num_groups: G; no more than there are nodes.

        Raises:
            ValueError: there are fewer nodes than groups, or fewer than three groups.
        """
        nodes = sorted(set(node_ids))
        if not LEAST_GROUPS <= num_groups <= len(nodes):
            raise ValueError(
                f"groups must number {LEAST_GROUPS} to {len(nodes)} (the nodes), got {num_groups}"
            )
        return NodeGroups({node: rank % num_groups for rank, node in enumerate(nodes)}, num_groups)

    def invited(self, devices_of_node: Mapping[int, Sequence[str]]) -> NDArray[np.int64]:
        """Return how many devices were invited in each group: public, before anyone answers.

        Args:
            devices_of_node: invited devices by their node.

        Returns:
            int64, shape (num_groups,).
        """
        invited = np.zeros(self.num_groups, np.int64)
        for node, devices in devices_of_node.items():
            invited[self.group_of[node]] += len(devices)
        return invited

    def placed(self, node_id: int, total: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return a node's sum among the sums of all groups, zero in the others.

        Args:
            node_id: whose sum it is.
            total: int64, shape (n_weights,).

        Returns:
            int64, shape (num_groups · n_weights,).
        """
        sums = np.zeros((self.num_groups, len(total)), np.int64)
        sums[self.group_of[node_id]] = total
        return sums.reshape(-1)


def robust_mean(
    released: NDArray[np.float64],
    *,
    invited: NDArray[np.int64],
    num_invited: int,
    rule: GroupRuleName,
) -> NDArray[np.float64]:
    """Take the median or trimmed mean of the noised means of the groups that have a device.

    Args:
        released: the groups' noised sums divided by the whole cohort, float64, shape
            (n_groups · n_weights,).
        invited: devices in each group, int64, shape (n_groups,).
        num_invited: n, by which the sums were divided.
        rule: `median` or `trimmed`.

    Returns:
        float64, shape (n_weights,).
    """
    there = invited > 0
    sums = released.reshape(len(invited), -1)[there]
    means = sums * (num_invited / invited[there])[:, None]
    return _of_groups(means, rule)


def _of_groups(means: NDArray[np.float64], rule: GroupRuleName) -> NDArray[np.float64]:
    """Return the rule's value along the first axis."""
    if rule == "median":
        middle: NDArray[np.float64] = np.median(means, axis=0)
        return middle
    left_out = math.floor(TRIMMED_SHARE * len(means))
    kept = np.sort(means, axis=0)[left_out : len(means) - left_out]
    mean: NDArray[np.float64] = kept.mean(axis=0)
    return mean


@dataclass(frozen=True, slots=True, kw_only=True)
class GroupRuleCost:
    """What a group rule costs in noise, at one σ and one number of invited devices.

    Attributes:
        rule: `median` or `trimmed`.
        num_groups: G.
        step: noise of one step, in units of one sum's, measured.
        prefix: root mean square noise of the sums of all steps so far, in the same unit.
        prefix_independent: that of one sum a step under independent noise.
        prefix_correlated: that of a stream under correlated noise.
    """

    rule: GroupRuleName
    num_groups: int
    step: float
    prefix: float
    prefix_independent: float
    prefix_correlated: float

    def __str__(self) -> str:
        """Say in one line what the rule costs."""
        return (
            f"{self.rule} of {self.num_groups} groups: noise of a prefix sum {self.prefix:.2f}, "
            f"against {self.prefix_independent:.2f} of one sum with independent noise and "
            f"{self.prefix_correlated:.2f} of a stream with correlated noise "
            f"({self.prefix / self.prefix_correlated:.1f} times; unit: noise of one step's sum)"
        )

    def to_json(self) -> dict[str, str | int | float]:
        """Return the cost as plain fields."""
        return {
            "rule": self.rule,
            "num_groups": self.num_groups,
            "step_noise": self.step,
            "prefix_noise": self.prefix,
            "prefix_noise_independent": self.prefix_independent,
            "prefix_noise_correlated": self.prefix_correlated,
        }


def group_rule_cost(
    rule: GroupRuleName, *, num_groups: int, num_rounds: int, bands: int
) -> GroupRuleCost:
    """Measure what a rule costs in noise.

    Args:
        rule: `median` or `trimmed`.
        num_groups: G, of equal size.
        num_rounds: T.
        bands: p of the stream that it is held against.
    """
    draws = OperatingSystemNoise().gaussian(num_groups * _DRAWS, std=1.0)
    step = num_groups * float(_of_groups(draws.reshape(num_groups, _DRAWS), rule).std())
    independent = prefix_sum_error(num_rounds, 1)
    return GroupRuleCost(
        rule=rule,
        num_groups=num_groups,
        step=step,
        prefix=step * independent,
        prefix_independent=independent,
        prefix_correlated=prefix_sum_error(num_rounds, bands),
    )


def cost_in_report(report: Mapping[str, Any]) -> GroupRuleCost | None:
    """Return what the group rule of a run costs, held against the stream it could have been.

    Args:
        report: as `run.json` holds it, or held it before there was the rule.

    Returns:
        The cost; None for a run without a rule.
    """
    config = report["config"]
    rule: GroupRuleName = config.get("group_rule", "none")
    if rule == "none":
        return None
    num_rounds: int = config["num_rounds"]
    separation: int = report["schedule"]["population_size"] // config["cohort_size"]
    return group_rule_cost(
        rule,
        num_groups=config["num_groups"],
        num_rounds=num_rounds,
        bands=min(max(separation, 1), num_rounds),
    )
