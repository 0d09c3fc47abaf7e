"""How sure, what would change it, and a simpler rule: sentences for the owner. No IO, no clock."""

from __future__ import annotations

import math
import re
from typing import TYPE_CHECKING

from models.counterfactual import Lever, Search
from models.feature_spec import FEATURES
from models.prediction import Confidence, confidence_level

from ..wording import fill

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np
    from numpy.typing import NDArray

    from models.counterfactual import Counterfactual
    from models.prediction import Report
    from models.tree_path import Condition, TreePath

    from ..wording import Wording

HISTORY = "history"
TIME = "time"
MEASURED_GROUPS = ("charging", "resistance", "temperature", "shutdowns", "usage")
DATA_THAT_HELPS = (HISTORY, "capacity", *MEASURED_GROUPS, TIME)
IN_PERCENT = frozenset(
    feature.name
    for feature in FEATURES
    if feature.unit.startswith(("fraction", "margin", "share", "ratio"))
)
"""Features that are shares; owners read them in percent."""

_AMOUNT_FIELDS = {
    Lever.TEMPERATURE: "limit_c",
    Lever.CHARGING_CEILING: "ceiling_pct",
    Lever.USE: "less_pct",
}
_WHOLE_FROM = 10
_WINDOW = re.compile(r"(_fitted|_design)?(_[0-9]+d)?$")
"""The end of a feature's name that tells one of a family from the others."""


def helpful_data(features: NDArray[np.float32]) -> tuple[str, ...]:
    """Return which data would make the estimate surer, of `DATA_THAT_HELPS`.

    Args:
        features: float32, shape (n_features,), raw values; NaN = missing.
    """
    missing = {
        feature.name
        for feature, value in zip(FEATURES, features.tolist(), strict=True)
        if math.isnan(value)
    }
    found = [HISTORY] if "capacity_slope_90d" in missing else []
    if "capacity_slope_30d" in missing:
        found.append("capacity")
    found += [
        group
        for group in MEASURED_GROUPS
        if all(feature.name in missing for feature in FEATURES if feature.group == group)
    ]
    return tuple(found or [TIME])


def confidence_sentences(
    report: Report, features: NDArray[np.float32], wording: Wording
) -> tuple[str, ...]:
    """Say how sure the estimate is, and where it is not: which data would help.

    Args:
        report: one with a prediction.
        features: float32, shape (n_features,), behind it.
        wording: the texts in the owner's language.
    """
    if report.confidence is None or report.recommended_action is None:
        return ()
    texts = wording.explanation
    level = confidence_level(report.confidence)
    fields = {
        "span": texts["spans"][report.recommended_action.value],
        "confidence_pct": f"{_percent_of_level(report.confidence)}",
    }
    sentences = [fill(texts["confidence"][level.value], fields)]
    if level is Confidence.LOW:
        sentences += [fill(texts["more_data"][data], {}) for data in helpful_data(features)]
    return tuple(sentence for sentence in sentences if sentence is not None)


def change_sentences(found: Counterfactual, wording: Wording) -> tuple[str, ...]:
    """Say what the owner could change and what the model would then estimate, or why nothing."""
    texts = wording.explanation["change"]
    if found.change is None or found.after is None:
        sentences = [fill(texts[found.search.value], {})]
    else:
        lever = found.change.lever
        fields = {
            "days_now": f"{found.now.days:.0f}",
            "days_after": f"{found.after.days:.0f}",
            _AMOUNT_FIELDS[lever]: f"{found.change.amount:.0f}",
        }
        sentences = [fill(texts[lever.value], fields), fill(texts["caveat"], {})]
    return tuple(sentence for sentence in sentences if sentence is not None)


def tree_sentences(path: TreePath, *, is_flagged: bool, wording: Wording) -> tuple[str, ...]:
    """Say what the simpler rule finds, how often it is right about the model, and whether here.

    Args:
        path: of this device through the bundle's tree.
        is_flagged: what the model says.
        wording: the texts in the owner's language.
    """
    texts = wording.explanation["tree"]
    told = [_condition(condition, wording) for condition in _one_of_each_family(path.conditions)]
    conditions = texts["and"][0].join(told)
    said = texts["flagged" if path.is_flagged else "unflagged"]
    sentences = [fill(said, {"conditions": conditions} if conditions else {})]
    if path.fidelity is not None:
        # Cut, not rounded: 99.6 % must not read as always.
        share = math.floor(100 * path.fidelity)
        sentences.append(fill(texts["fidelity"], {"fidelity_pct": f"{share}"}))
    if path.is_flagged != is_flagged:
        sentences.append(fill(texts["differs"], {}))
    return tuple(sentence for sentence in sentences if sentence is not None)


def _percent_of_level(confidence: float) -> int:
    """Return whole percent that bear the same word: 79.6 % is not called 80 % and not very sure."""
    rounded = round(100 * confidence)
    same = confidence_level(rounded / 100) is confidence_level(confidence)
    return rounded if same else math.floor(100 * confidence)


def recommended_words(action: str, urgency: str | None, wording: Wording) -> str:
    """Say the recommended action, and how soon."""
    texts = wording.explanation
    fields = {"action": texts["actions"][action]}
    if urgency is not None:
        fields["urgency"] = texts["urgencies"][urgency]
    return fill(texts["recommended"], fields) or fields["action"]


def _one_of_each_family(conditions: Sequence[Condition]) -> list[Condition]:
    """Return the first answer that each kind of figure gives, over whatever window it is taken.

    What the device did not measure is no reason.
    """
    found: dict[str, Condition] = {}
    for condition in conditions:
        if condition.value is not None:
            found.setdefault(_WINDOW.sub("", condition.feature), condition)
    return list(found.values())


def _condition(condition: Condition, wording: Wording) -> str:
    """Say one answer of the rule, with the device's own value where it reads unlike the limit."""
    texts = wording.explanation["tree"]
    feature = wording.explanation["features"][condition.feature]
    limit = _number(condition.threshold, condition.feature, wording)
    value = (
        limit if condition.value is None else _number(condition.value, condition.feature, wording)
    )
    unit = feature["unit"]
    fields = {"name": feature["name"], "limit": f"{limit} {unit}".rstrip()}
    if value != limit:
        fields |= {"value": f"{value} {unit}".rstrip(), "limit": limit}
    return fill(texts["above" if condition.is_above else "at_most"], fields) or feature["name"]


def _number(value: float, feature: str, wording: Wording) -> str:
    shown = 100 * value if feature in IN_PERCENT else value
    text = f"{shown:.0f}" if abs(shown) >= _WHOLE_FROM else f"{shown:.1f}".removesuffix(".0")
    text = "0" if text == "-0" else text
    return str(text.replace(".", wording.explanation["decimal"]))


SEARCHES_WITHOUT_CHANGE = tuple(search for search in Search if search is not Search.FOUND)
"""The ends of a search that have a sentence of their own."""
