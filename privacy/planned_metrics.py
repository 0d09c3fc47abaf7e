"""How many held-out devices a private figure needs: from expected counts, before anything is asked.

A score whose log-odds are normal among devices that live on, and shifted among those that fail, has
its AUC from the shift alone; with the prevalence it gives the expected count in every bin. Put into
the same intervals that releases go through, these say how wide an interval will be, and from which
number of devices on it says anything.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from statistics import NormalDist
from typing import Final

import numpy as np

from .count_intervals import Estimate
from .policy import CountChannel
from .score_metrics import ScoreHistogram, average_precision, roc_auc

_MOST_DEVICES: Final = 10**8
_NORMAL: Final = NormalDist()

FIGURES: Final[dict[str, Callable[[ScoreHistogram], Estimate]]] = {
    "auc": roc_auc,
    "average_precision": average_precision,
}
"""The figures that a plan speaks of, by name."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AssumedScores:
    """What the figures are expected to look like; named wherever a size is told.

    Attributes:
        auc: above ½ and below 1.
        prevalence: share of devices that fail within a release's window.
        edges: of the bins of the probability, ascending.
    """

    auc: float
    prevalence: float
    edges: tuple[float, ...]

    def __post_init__(self) -> None:
        """Refuse what no model and no fleet has."""
        if not 0.5 < self.auc < 1.0:
            raise ValueError(f"auc must lie in (0.5, 1), got {self.auc}")
        if not 0.0 < self.prevalence < 1.0:
            raise ValueError(f"prevalence must lie in (0, 1), got {self.prevalence}")

    def shares(self) -> tuple[list[float], list[float]]:
        """Share of each bin among devices that live on, and among those that fail."""
        shift = math.sqrt(2) * _NORMAL.inv_cdf(self.auc)
        odds = math.log(self.prevalence / (1 - self.prevalence))
        cuts = [(math.log(p / (1 - p)) - odds) / shift + shift / 2 for p in self.edges]
        return _between(cuts), _between([cut - shift for cut in cuts])


def expected_histogram(
    scores: AssumedScores, *, devices: int, channel: CountChannel
) -> ScoreHistogram:
    """Expected counts once every answer of a channel is pooled.

    Args:
        scores: what is assumed.
        devices: held out, all of which answer every time.
        channel: how often, with which noise.
    """
    lived, failed = scores.shares()
    windows = devices * channel.max_answers
    return ScoreHistogram(
        negatives=windows * (1 - scores.prevalence) * np.array(lived),
        positives=windows * scores.prevalence * np.array(failed),
        noise_variance=channel.max_answers * channel.noise_multiplier**2,
        releases=channel.max_answers,
    )


def expected_estimate(
    figure: str, scores: AssumedScores, *, devices: int, channel: CountChannel
) -> Estimate:
    """What a fleet that holds out so many devices may expect of a figure.

    Args:
        figure: one of `FIGURES`.
        scores: what is assumed.
        devices: held out.
        channel: how often they are asked, with which noise.
    """
    histogram = expected_histogram(scores, devices=devices, channel=channel)
    return FIGURES[figure](histogram)


def least_devices(figure: str, scores: AssumedScores, *, channel: CountChannel) -> int | None:
    """Least number of held-out devices at which a figure is measurable, by bisection.

    Returns:
        The number, or None where no fleet is large enough: its interval stays too wide.
    """

    def is_enough(devices: int) -> bool:
        return expected_estimate(figure, scores, devices=devices, channel=channel).is_measurable

    high = 1
    while not is_enough(high):
        high *= 2
        if high > _MOST_DEVICES:
            return None
    low = high // 2
    while high - low > max(1, high // 1000):
        middle = (low + high) // 2
        low, high = (low, middle) if is_enough(middle) else (middle, high)
    return high


def _between(cuts: Sequence[float]) -> list[float]:
    below = [0.0, *(_NORMAL.cdf(cut) for cut in cuts), 1.0]
    return [high - low for low, high in pairwise(below)]
