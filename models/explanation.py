"""Exact Shapley values over the eight feature groups, against a public reference device.

The value of a coalition is the model's log-odds of failure within 30 days when the groups in it
take the device's values and the others the reference's. With 8 groups all 256 coalitions are run
at once, so the values are exact (Shapley 1953; Lundberg and Lee 2017, equation 4), not sampled.
"""

from __future__ import annotations

from functools import cache
from math import comb
from typing import TYPE_CHECKING, Literal
from weakref import WeakKeyDictionary

import numpy as np

from .errors import BundleError
from .feature_spec import GROUPS, NUM_FEATURES, group_index
from .prediction import NUM_REASONS, Reason

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, MutableMapping

    from numpy.typing import NDArray

    from .coalition_session import CoalitionSession
    from .inference import Predictor

    Features = NDArray[np.float32]
    Runner = Callable[[Features, Features, NDArray[np.bool_]], NDArray[np.float32]]

LEAST_PROBABILITY = 1e-6
LEAST_SHARE = 0.01
BATCH_WINDOWS = 64
MANY_ROWS = 16
_PROBABILITY = "failure_probability_30d"

_RUNNERS: MutableMapping[Predictor, CoalitionSession | Literal[False] | None] = WeakKeyDictionary()
"""What runs coalitions quickly: None after one explanation, False where the graph forbids it."""


def shapley_values(predictor: Predictor, features: NDArray[np.float32]) -> NDArray[np.float64]:
    """Return each group's contribution to the log-odds, shape (n, n_groups).

    A feature that was not measured is left out of the reference too, so that what is not known
    explains nothing. A group that equals the reference's changes no coalition that it joins: its
    value is 0, and the others' are those of the game without it, which needs half the runs.

    Args:
        predictor: the model.
        features: float32, shape (n, n_features), raw values.
    """
    reference = predictor.bundle.explanation_reference
    others = np.where(np.isnan(features), features, reference)
    values = np.zeros((len(features), len(GROUPS)))
    run = _runner(predictor, len(features))
    for players, rows in _rows_by_players(features, others):
        own_features, weights = _coalitions(players)
        # As many rows a run as with all groups.
        step = max((BATCH_WINDOWS << len(GROUPS)) // len(own_features), 1)
        for first in range(0, len(rows), step):
            part = rows[first : first + step]
            odds = log_odds(run(features[part], others[part], own_features))
            values[part[:, None], players] = odds.reshape(-1, len(own_features)) @ weights
    return values


def _runner(predictor: Predictor, num_rows: int) -> Runner:
    """Return what runs coalitions: the model, or what repeats itself more quickly.

    The quicker one takes some thirty milliseconds to load, too long for a process that explains
    one device and ends. It serves from a process's second explanation on, or for many devices.
    """

    def run(own: Features, other: Features, takes_own: NDArray[np.bool_]) -> NDArray[np.float32]:
        mixed = np.where(takes_own, own[:, None], other[:, None]).reshape(-1, own.shape[1])
        return predictor.outputs(mixed, [_PROBABILITY])[_PROBABILITY]

    if predictor not in _RUNNERS and num_rows < MANY_ROWS:
        _RUNNERS[predictor] = None
        return run
    found = _RUNNERS.get(predictor)
    if found is None:
        from .coalition_session import CoalitionSession

        try:
            found = CoalitionSession(predictor.bundle.model_bytes, _PROBABILITY)
        except (BundleError, ValueError):
            found = False
        _RUNNERS[predictor] = found
    return found.run_coalitions if found else run


def _rows_by_players(
    features: NDArray[np.float32], others: NDArray[np.float32]
) -> Iterator[tuple[tuple[int, ...], NDArray[np.intp]]]:
    """Return the rows in which the same groups differ from the reference, with these groups."""
    # Where both are missing neither is larger.
    differs = (features < others) | (features > others)
    played = np.bitwise_or.reduce(differs * _group_bits(), axis=1)
    codes = set(played.tolist())
    for code in sorted(codes):
        players = tuple(group for group in range(len(GROUPS)) if code >> group & 1)
        if players:
            is_all = len(codes) == 1
            yield players, np.arange(len(features)) if is_all else np.flatnonzero(played == code)


@cache
def _group_bits() -> NDArray[np.intp]:
    return np.array([1 << group for group in group_index()])


@cache
def _coalitions(players: tuple[int, ...]) -> tuple[NDArray[np.bool_], NDArray[np.float64]]:
    """Return all coalitions of some groups, and what turns their values into Shapley values.

    Returns:
        Which features each coalition takes from the device, shape (n_coalitions, n_features), and
        W of shape (n_coalitions, n_players) with Shapley values φ = v W.
    """
    count = len(players)
    member = (np.arange(1 << count)[:, None] >> np.arange(count) & 1).astype(bool)
    own: NDArray[np.bool_] = np.zeros((1 << count, NUM_FEATURES), bool)
    for position, player in enumerate(players):
        own[:, np.array(group_index()) == player] = member[:, position, None]
    size = member.sum(axis=1)
    joined = np.array([1 / (count * comb(count - 1, k)) for k in range(count)])
    with_it = joined[np.maximum(size - 1, 0)]
    without = joined[np.minimum(size, count - 1)]
    return own, np.where(member, with_it[:, None], -without[:, None])


def log_odds(probability: NDArray[np.float32]) -> NDArray[np.float64]:
    """Return ln(p / (1 − p)), with p kept a millionth away from 0 and 1."""
    kept = np.clip(probability.astype(np.float64), LEAST_PROBABILITY, 1 - LEAST_PROBABILITY)
    odds: NDArray[np.float64] = np.log(kept / (1 - kept))
    return odds


def top_reasons(contributions: NDArray[np.float64]) -> tuple[Reason, ...]:
    """Return the top three reasons for one prediction.

    Args:
        contributions: Shapley values of the groups, shape (n_groups,).
    """
    size = np.abs(contributions)
    total = float(size.sum())
    if total <= 0:
        return ()
    order = np.argsort(-size, kind="stable")[:NUM_REASONS]
    return tuple(
        Reason(
            code=f"{GROUPS[group]}.{'raises' if contributions[group] > 0 else 'lowers'}",
            share=round(float(size[group] / total), 4),
        )
        for group in order
        if size[group] / total >= LEAST_SHARE
    )
