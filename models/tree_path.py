"""How one device goes through the small tree that approximates the model (A5)."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from .feature_spec import FEATURE_NAMES

if TYPE_CHECKING:
    from collections.abc import Mapping

    import numpy as np
    from numpy.typing import NDArray

MAX_DEPTH = 16


@dataclass(frozen=True, slots=True)
class Condition:
    """One answer on the way down.

    Attributes:
        feature: which feature is asked for.
        is_above: whether the device lies above the threshold, else at or below it.
        threshold: in the feature's unit.
        value: the device's; None where it was not measured and the public reference answered.
    """

    feature: str
    is_above: bool
    threshold: float
    value: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class TreePath:
    """What the tree says of one device, and how far it can be trusted.

    Attributes:
        conditions: the way from root to leaf; of several on one side of one feature the tightest.
        flagged_share: share of the model's flags among the rows of this leaf, 0 to 1.
        fidelity: share of equal decisions on rows that the tree was not fitted on; None where the
            bundle does not say.
        fidelity_r2: R² of the tree's log-odds against the model's on those rows; None likewise.
    """

    conditions: tuple[Condition, ...]
    flagged_share: float
    fidelity: float | None
    fidelity_r2: float | None

    @property
    def is_flagged(self) -> bool:
        """Whether the tree would flag the device."""
        return self.flagged_share >= 0.5


def follow_tree(
    tree: Mapping[str, Any], features: NDArray[np.float32], *, reference: NDArray[np.float32]
) -> TreePath | None:
    """Walk through a bundle's surrogate tree.

    Args:
        tree: of the manifest; bundles made before trees were measured lack figures, some a tree.
        features: float32, shape (n_features,), raw values of one device.
        reference: float32, shape (n_features,): answers for what was not measured.

    Returns:
        The path; None where the bundle has no tree that can be walked.
    """
    try:
        conditions, leaf = _walk(tree["nodes"], features, reference)
        share = float(leaf["flagged_share"])
    except (KeyError, IndexError, TypeError, ValueError):
        return None
    if not 0.0 <= share <= 1.0:
        return None
    return TreePath(
        conditions=_tightest(conditions),
        flagged_share=share,
        fidelity=_figure(tree.get("fidelity")),
        fidelity_r2=_figure(tree.get("fidelity_r2")),
    )


def _walk(
    nodes: list[dict[str, Any]], features: NDArray[np.float32], reference: NDArray[np.float32]
) -> tuple[list[Condition], dict[str, Any]]:
    conditions: list[Condition] = []
    node = nodes[0]
    while "flagged_share" not in node:
        if len(conditions) == MAX_DEPTH:
            raise ValueError("the tree does not end")
        at, threshold = FEATURE_NAMES.index(node["feature"]), float(node["threshold"])
        own = float(features[at])
        is_known = math.isfinite(own)
        is_above = (own if is_known else float(reference[at])) > threshold
        conditions.append(
            Condition(node["feature"], is_above, threshold, own if is_known else None)
        )
        node = nodes[int(node["right" if is_above else "left"])]
    return conditions, node


def _tightest(conditions: list[Condition]) -> tuple[Condition, ...]:
    kept: dict[tuple[str, bool], Condition] = {}
    for condition in conditions:
        side = (condition.feature, condition.is_above)
        other = kept.get(side)
        if other is None or (condition.threshold > other.threshold) == condition.is_above:
            kept[side] = condition
    return tuple(kept.values())


def _figure(value: object) -> float | None:
    is_number = isinstance(value, int | float) and math.isfinite(value)
    return float(value) if is_number else None  # type: ignore[arg-type]
