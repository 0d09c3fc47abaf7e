"""A small decision tree that approximates the model's flags, for the owner's page (A5)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from ..explanation import log_odds
from ..feature_spec import FEATURE_NAMES

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray
    from sklearn.tree import DecisionTreeClassifier

DEPTH = 3
LEAF = -1
LEAST_ROWS_A_LEAF = 25
NOT_MEASURED: dict[str, float | None] = {
    "fidelity": None,
    "fidelity_f1": None,
    "fidelity_r2": None,
}


@dataclass(frozen=True, slots=True)
class ModelRows:
    """Rows with what the model says of them.

    Attributes:
        features: float32, shape (n, n_features), raw values.
        probability: shape (n,): the model's 30-day probability.
        flagged: bool, shape (n,): whether it reaches the threshold.
    """

    features: NDArray[np.float32]
    probability: NDArray[np.float32]
    flagged: NDArray[np.bool_]

    def where(self, chosen: NDArray[np.bool_]) -> ModelRows:
        """Return the chosen rows."""
        return ModelRows(self.features[chosen], self.probability[chosen], self.flagged[chosen])


def surrogate_tree(
    fitted: ModelRows, checked: ModelRows, *, reference: NDArray[np.float32]
) -> dict[str, Any]:
    """Fit a tree of depth 3 to the model's own flags, and measure how faithful it is.

    Args:
        fitted: rows that the tree is fitted on.
        checked: rows of other devices, on which its fidelity is measured.
        reference: float32, shape (n_features,): what a missing value reads as.

    Returns:
        `nodes`, each with `feature`, `threshold`, `left` (at or below), `right`, or
        `flagged_share` and `log_odds` (mean of the model's) at a leaf; `fidelity`, the share of
        equal decisions; `fidelity_f1`, F1 of the tree against the model's flags; `fidelity_r2`, R²
        of the leaf's log-odds against the model's; the three are None where nothing is flagged or
        nothing was checked.
    """
    if not fitted.flagged.any():
        return {"nodes": [{"flagged_share": 0.0}], **NOT_MEASURED}
    from sklearn.tree import DecisionTreeClassifier

    classifier = DecisionTreeClassifier(
        max_depth=DEPTH, min_samples_leaf=LEAST_ROWS_A_LEAF, random_state=0
    )
    classifier.fit(_filled(fitted.features, reference), fitted.flagged)
    tree = classifier.tree_
    positive = list(classifier.classes_).index(True)
    leaf_of = classifier.apply(_filled(fitted.features, reference))
    odds = log_odds(fitted.probability)
    leaf_odds = {int(leaf): float(odds[leaf_of == leaf].mean()) for leaf in np.unique(leaf_of)}
    nodes: list[dict[str, Any]] = []
    for node in range(tree.node_count):
        if tree.children_left[node] == LEAF:
            share = round(float(tree.value[node, 0, positive]), 4)
            nodes.append({"flagged_share": share, "log_odds": round(leaf_odds[node], 4)})
        else:
            nodes.append(
                {
                    "feature": FEATURE_NAMES[tree.feature[node]],
                    "threshold": float(np.float32(tree.threshold[node])),
                    "left": int(tree.children_left[node]),
                    "right": int(tree.children_right[node]),
                }
            )
    return {"nodes": nodes, **_fidelity(classifier, leaf_odds, checked, reference)}


def fidelity_of(tree: Mapping[str, Any]) -> dict[str, float | None]:
    """Return the tree's three figures of fidelity, as the model card carries them."""
    return {name: tree[name] for name in NOT_MEASURED}


def fidelity_text(tree: Mapping[str, Any]) -> str:
    """Return the section of the model card that says how faithful the tree is."""
    said = "It was not measured."
    if tree["fidelity"] is not None:
        said = f"It flags as the model does on {tree['fidelity']:.1%} of rows of devices that it"
        said += f" was not fitted on (F1 of its flags {tree['fidelity_f1']:.3f}"
        if tree["fidelity_r2"] is not None:
            said += f", R² of its log-odds {tree['fidelity_r2']:.3f}"
        said += ")."
    what = "A tree of depth 3 in the manifest approximates the model, for the owner's page."
    return f"\n## Small decision tree\n\n{what}\n{said}\n"


def _fidelity(
    classifier: DecisionTreeClassifier,
    leaf_odds: dict[int, float],
    checked: ModelRows,
    reference: NDArray[np.float32],
) -> dict[str, float | None]:
    if len(checked.flagged) == 0:
        return NOT_MEASURED
    filled = _filled(checked.features, reference)
    says = classifier.predict(filled)
    hits = int((says & checked.flagged).sum())
    odds = log_odds(checked.probability)
    told = np.array([leaf_odds[int(leaf)] for leaf in classifier.apply(filled)])
    around = float(((odds - odds.mean()) ** 2).sum())
    return {
        "fidelity": float((says == checked.flagged).mean()),
        "fidelity_f1": 2 * hits / max(int(says.sum() + checked.flagged.sum()), 1),
        "fidelity_r2": 1 - float(((odds - told) ** 2).sum()) / around if around > 0 else None,
    }


def _filled(features: NDArray[np.float32], reference: NDArray[np.float32]) -> NDArray[np.float32]:
    return np.where(np.isnan(features), reference, features)
