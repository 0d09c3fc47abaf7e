"""Central, non-private peers (A7): logistic regression and gradient boosting, by scikit-learn."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from ..metrics import best_f1_threshold

if TYPE_CHECKING:
    from numpy.typing import NDArray

PEERS = ("logistic_regression", "gradient_boosting")
VALIDATION_SHARE = 0.25
MAX_TRAINING_WINDOWS = {"logistic_regression": 40_000, "gradient_boosting": 200_000}
"""More do not change the figures, and take minutes."""


@dataclass(frozen=True, slots=True)
class PeerScores:
    """What a peer says of windows it was not trained on.

    Attributes:
        probability: float64, shape (n,), of a failure within the horizon.
        flagged: bool, shape (n,), probability at or above the threshold that was best by F1 on
            devices held out of the training ones.
    """

    probability: NDArray[np.float64]
    flagged: NDArray[np.bool_]


def _model(name: str, seed: int) -> Any:
    # Loaded where it trains: scikit-learn and SciPy take two seconds.
    from sklearn.ensemble import HistGradientBoostingClassifier

    if name == "gradient_boosting":
        return HistGradientBoostingClassifier(max_iter=200, learning_rate=0.06, random_state=seed)
    from sklearn.impute import SimpleImputer
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import QuantileTransformer

    return make_pipeline(
        SimpleImputer(strategy="median", keep_empty_features=True, add_indicator=True),
        QuantileTransformer(output_distribution="normal", random_state=seed),
        LogisticRegression(max_iter=500),
    )


def score_with_peer(
    name: str,
    *,
    train: tuple[NDArray[np.float32], NDArray[np.bool_], NDArray[np.intp]],
    test_features: NDArray[np.float32],
    seed: int,
) -> PeerScores:
    """Train a peer on some devices and score the windows of others.

    Args:
        name: one of `PEERS`.
        train: features (n, n_features), labels (n,) and device (n,) of windows whose label is
            known.
        test_features: float32, shape (m, n_features).
        seed: of sampling and of the learner.
    """
    features, label, device = train
    generator = np.random.default_rng(seed)
    most = MAX_TRAINING_WINDOWS[name]
    if len(label) > most:
        picked = np.sort(generator.choice(len(label), most, replace=False))
        features, label, device = features[picked], label[picked], device[picked]
    devices = np.unique(device)
    held_out = generator.permutation(devices)[: max(1, int(VALIDATION_SHARE * len(devices)))]
    validation = np.isin(device, held_out)
    known = np.where(np.isnan(features).all(axis=0), np.float32(0), features)
    if not label.any() or label.all() or not label[~validation].any():
        share = float(label.mean()) if len(label) else 0.0
        nothing = np.full(len(test_features), share)
        return PeerScores(nothing, np.zeros(len(test_features), bool))
    rehearsal = _model(name, seed).fit(known[~validation], label[~validation])
    threshold = best_f1_threshold(
        [(label[validation], rehearsal.predict_proba(known[validation])[:, 1])]
    )
    model = _model(name, seed).fit(known, label)
    empty = np.isnan(features).all(axis=0)
    probability = model.predict_proba(np.where(empty, np.float32(0), test_features))[:, 1]
    return PeerScores(probability, probability >= threshold)


def cross_fitted(
    name: str,
    *,
    features: NDArray[np.float32],
    label: NDArray[np.bool_],
    known: NDArray[np.bool_],
    group: NDArray[np.intp],
    num_folds: int = 3,
    seed: int = 0,
) -> PeerScores:
    """Score every window by a peer that saw no window of the same group.

    Args:
        name: one of `PEERS`.
        features: float32, shape (n, n_features).
        label: shape (n,).
        known: shape (n,): only these windows are trained on.
        group: shape (n,): device, or test condition where several devices share one.
        num_folds: parts the groups are dealt into at random.
        seed: of the deal and of the learner.
    """
    groups = np.unique(group)
    fold_of_group = np.random.default_rng(seed).permutation(len(groups)) % num_folds
    fold = fold_of_group[np.searchsorted(groups, group)]
    probability = np.zeros(len(label))
    flagged = np.zeros(len(label), bool)
    for number in range(num_folds):
        test, train = fold == number, (fold != number) & known
        scores = score_with_peer(
            name,
            train=(features[train], label[train], group[train]),
            test_features=features[test],
            seed=seed,
        )
        probability[test], flagged[test] = scores.probability, scores.flagged
    return PeerScores(probability, flagged)
