"""A small decision tree that approximates the model's flags, for the owner's page (A5)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from sklearn.tree import DecisionTreeClassifier

from ..feature_spec import FEATURE_NAMES

if TYPE_CHECKING:
    from numpy.typing import NDArray

DEPTH = 3
LEAF = -1


def surrogate_tree(
    features: NDArray[np.float32],
    flagged: NDArray[np.bool_],
    *,
    reference: NDArray[np.float32],
    checked: tuple[NDArray[np.float32], NDArray[np.bool_]],
) -> dict[str, Any]:
    """Fit a tree of depth 3 to the model's own flags.

    Args:
        features: float32, shape (n, n_features); missing values read as the reference's.
        flagged: bool, shape (n,), by the model.
        reference: float32, shape (n_features,).
        checked: other features and flags on which the fidelity is measured.

    Returns:
        `nodes`, each with `feature`, `threshold`, `left` (at or below), `right`, or
        `flagged_share` at a leaf; `fidelity`, the share of equal decisions; `fidelity_f1`, F1 of
        the tree against the model's flags.
    """
    if not flagged.any():
        return {"nodes": [{"flagged_share": 0.0}], "fidelity": None, "fidelity_f1": None}

    def filled(values: NDArray[np.float32]) -> NDArray[np.float32]:
        return np.where(np.isnan(values), reference, values)

    fitted = DecisionTreeClassifier(max_depth=DEPTH, min_samples_leaf=25, random_state=0)
    tree = fitted.fit(filled(features), flagged).tree_
    positive = list(fitted.classes_).index(True)
    nodes: list[dict[str, Any]] = []
    for node in range(tree.node_count):
        if tree.children_left[node] == LEAF:
            nodes.append({"flagged_share": round(float(tree.value[node, 0, positive]), 4)})
        else:
            nodes.append(
                {
                    "feature": FEATURE_NAMES[tree.feature[node]],
                    "threshold": float(np.float32(tree.threshold[node])),
                    "left": int(tree.children_left[node]),
                    "right": int(tree.children_right[node]),
                }
            )
    says, model = fitted.predict(filled(checked[0])), checked[1]
    hits = int((says & model).sum())
    return {
        "nodes": nodes,
        "fidelity": float((says == model).mean()),
        "fidelity_f1": 2 * hits / max(int(says.sum() + model.sum()), 1),
    }
