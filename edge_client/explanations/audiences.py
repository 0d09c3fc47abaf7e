"""One report for three readers (A5): plain sentences, all figures, the audit record."""

from __future__ import annotations

import math
from dataclasses import asdict
from enum import StrEnum
from typing import TYPE_CHECKING, Any

from models.feature_spec import FEATURES, GROUPS
from models.prediction import ACTION_EDGES_DAYS, HIGH_CONFIDENCE, MEDIUM_CONFIDENCE

from .sentences import change_sentences, confidence_sentences, tree_sentences

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from models.counterfactual import Counterfactual

    from ..wording import Wording
    from .evidence import Evidence

    Row = tuple[str, str]


class Audience(StrEnum):
    """Who reads an explanation."""

    OWNER = "owner"
    SUPPORT = "support"
    COMPLIANCE = "compliance"


def owner_sentences(evidence: Evidence, wording: Wording) -> dict[str, tuple[str, ...]]:
    """Return what the owner reads beside the reasons, by subject; nothing without a prediction.

    `confidence`: how sure, and which data would help; `change`: what the owner could do;
    `simpler_rule`: the small tree's way for this device, with its fidelity.
    """
    report, path, change = evidence.report, evidence.path, evidence.counterfactual
    said: dict[str, tuple[str, ...]] = {}
    if evidence.features is not None:
        said["confidence"] = confidence_sentences(report, evidence.features, wording)
    if change is not None:
        said["change"] = change_sentences(change, wording)
    if path is not None:
        said["simpler_rule"] = tree_sentences(
            path, is_flagged=bool(report.flagged), wording=wording
        )
    return {subject: sentences for subject, sentences in said.items() if sentences}


def support_figures(evidence: Evidence) -> dict[str, Any]:
    """Return every figure behind the report, as JSON can carry it."""
    features, contributions, audit = evidence.features, evidence.contributions, evidence.audit
    return {
        "contributions_log_odds": None
        if contributions is None
        else dict(zip(GROUPS, contributions.tolist(), strict=True)),
        "features": None
        if features is None
        else [
            {
                "name": feature.name,
                "value": None if math.isnan(value) else value,
                "unit": feature.unit,
                "group": feature.group,
                "reference": reference,
            }
            for feature, value, reference in zip(
                FEATURES,
                features.astype(float).tolist(),
                evidence.predictor.bundle.explanation_reference.astype(float).tolist(),
                strict=True,
            )
        ],
        "thresholds": _thresholds(evidence),
        "data_quality": {
            "audit": None if audit is None else asdict(audit),
            "refused_by_the_store": dict(evidence.refusals),
        },
        "change": None
        if evidence.counterfactual is None
        else change_figures(evidence.counterfactual),
        "simpler_rule": None if evidence.path is None else asdict(evidence.path),
    }


def change_figures(found: Counterfactual) -> dict[str, Any]:
    """Return what the search for a change found, as JSON can carry it."""
    change = found.change
    return {
        "search": found.search.value,
        "now": found.now._asdict(),
        "change": None if change is None else asdict(change) | {"lever": change.lever.value},
        "after": None if found.after is None else found.after._asdict(),
        "num_tried": found.num_tried,
    }


def support_rows(evidence: Evidence) -> Iterator[Row]:
    """Return the same figures as two columns of text."""
    figures = support_figures(evidence)
    yield from _contribution_rows(figures["contributions_log_odds"])
    for feature in figures["features"] or ():
        known = feature["value"] is not None
        value = f"{feature['value']:.5g} {feature['unit']}" if known else "not measured"
        yield (feature["name"], f"{value} (reference {feature['reference']:.5g})")
    yield ("flagged from", f"{evidence.predictor.bundle.threshold:.4f}")
    edges = ", ".join(f"{edge:g}" for edge in ACTION_EDGES_DAYS)
    yield ("actions change at", f"{edges} days")
    yield ("confidence", f"high from {HIGH_CONFIDENCE:g}, medium from {MEDIUM_CONFIDENCE:g}")
    yield from _quality_rows(evidence)
    found = evidence.counterfactual
    if found is not None:
        yield ("change", found.search.value)
        if found.change is not None and found.after is not None:
            days = f"{found.now.days:.1f} to {found.after.days:.1f} days"
            yield ("", f"{found.change.lever.value} {found.change.amount:g}: {days}")
    path = evidence.path
    if path is not None:
        told = "flagged" if path.is_flagged else "not flagged"
        yield ("simpler rule", f"{told} ({path.flagged_share:.1%} of its leaf)")
        for condition in path.conditions:
            sign = ">" if condition.is_above else "<="
            own = "not measured" if condition.value is None else f"{condition.value:.5g}"
            yield ("", f"{condition.feature} {sign} {condition.threshold:.5g} ({own})")
        yield ("its fidelity", _fidelity(path.fidelity, path.fidelity_r2))


def _thresholds(evidence: Evidence) -> dict[str, Any]:
    return {
        "flag_threshold": evidence.predictor.bundle.threshold,
        "action_edges_days": list(ACTION_EDGES_DAYS),
        "confidence_levels": {"high": HIGH_CONFIDENCE, "medium": MEDIUM_CONFIDENCE},
    }


def _contribution_rows(contributions: Mapping[str, float] | None) -> Iterator[Row]:
    if contributions is None:
        return
    total = sum(abs(value) for value in contributions.values()) or 1.0
    ordered = sorted(contributions.items(), key=lambda entry: -abs(entry[1]))
    for number, (group, value) in enumerate(ordered):
        share = f"{abs(value) / total:.0%}"
        yield ("log-odds by group" if number == 0 else "", f"{group} {value:+.3f} ({share})")


def _quality_rows(evidence: Evidence) -> Iterator[Row]:
    audit = evidence.audit
    if audit is not None:
        yield ("readings", f"{audit.num_readings}")
        for number, (name, share) in enumerate(audit.completeness.items()):
            yield ("completeness" if number == 0 else "", f"{name} {share:.0%}")
        yield ("refused by the audit", _counts(audit.refused))
        yield ("noted by the audit", _counts(audit.noted))
    yield ("refused by the store", _counts(evidence.refusals))


def _counts(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{name} {count}" for name, count in counts.items()) or "nothing"


def _fidelity(agreement: float | None, r2: float | None) -> str:
    if agreement is None:
        return "not measured"
    r2_text = "not measured" if r2 is None else f"{r2:.3f}"
    return f"{agreement:.2%} of the model's decisions, R² of log-odds {r2_text}"
