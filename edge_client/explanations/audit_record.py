"""The audit record of one prediction (A5, for compliance), and whether a re-run confirms it.

The record is canonical JSON: the same device, moment, model and readings give the same bytes on the
same backend. It names its own digest. Another backend, or another version of one, may differ in the
last digits; a re-run allows for that in the figures and in nothing else.
"""

from __future__ import annotations

import hashlib
import json
import math
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from models import feature_spec
from models.bundle import CLIENT_VERSION, canonical_json
from models.prediction import (
    ACTION_EDGES_DAYS,
    ACTIONS,
    HIGH_CONFIDENCE,
    HORIZON_DAYS,
    MEDIUM_CONFIDENCE,
    confidence_level,
    due_because,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

    import numpy as np
    from numpy.typing import NDArray

    from models.inference import Predictor
    from models.prediction import Report

    from .evidence import Evidence

SCHEMA_VERSION = 1
KIND = "prediction_audit_record"
DIGEST = "record_sha256"
FIGURES = (
    "state_of_health",
    "failure_probability_30d",
    "days_to_failure_p10",
    "days_to_failure_p50",
    "days_to_failure_p90",
    "confidence",
)
NOT_COMPARED = frozenset({"backend", "client_version", DIGEST})
RELATIVE_TOLERANCE = 1e-4
ABSOLUTE_TOLERANCE = 1e-4


def audit_record(evidence: Evidence) -> dict[str, Any]:
    """Return the record of a report, as JSON can carry it."""
    report, bundle = evidence.report, evidence.predictor.bundle
    audit = evidence.audit
    contributions = evidence.contributions
    record: dict[str, Any] = {
        "schema_version": SCHEMA_VERSION,
        "kind": KIND,
        "device": report.device_id,
        "as_of": report.as_of.isoformat(),
        "client_version": ".".join(map(str, CLIENT_VERSION)),
        "backend": backend_of(evidence.predictor),
        "model": {
            "version": bundle.version,
            "digest": bundle.digest,
            "feature_spec_version": report.feature_spec_version,
            "feature_spec_digest": feature_spec.digest(),
        },
        "input": {
            "features_sha256": features_digest(evidence.features),
            "num_readings": 0 if audit is None else audit.num_readings,
            "refused": {} if audit is None else dict(audit.refused),
        },
        "status": report.status.value,
        "outputs": {name: getattr(report, name) for name in FIGURES},
        "primary_issue": report.primary_issue,
        "thresholds": {
            "flag": bundle.threshold,
            "action_edges_days": list(ACTION_EDGES_DAYS),
            "confidence_high": HIGH_CONFIDENCE,
            "confidence_medium": MEDIUM_CONFIDENCE,
        },
        "decisions": _decisions(report),
        "reasons": [{"code": reason.code, "share": reason.share} for reason in report.reasons],
        "contributions_log_odds": None
        if contributions is None
        else {
            group: round(float(value), 6) + 0.0
            for group, value in zip(feature_spec.GROUPS, contributions, strict=True)
        },
    }
    if evidence.log_factor != 0.0:
        record["personalisation"] = {
            "log_factor": evidence.log_factor,
            "model_days_to_failure_p50": report.model_days_to_failure_p50,
        }
    return record | {DIGEST: record_digest(record)}


def log_factor_of(record: dict[str, Any]) -> float:
    """Return the device's own correction that a record was made with, 0 = none.

    Raises:
        ValueError: the record names one that is no number.
    """
    said = record.get("personalisation", {})
    log_factor = said.get("log_factor", 0.0) if isinstance(said, dict) else None
    if not isinstance(log_factor, float) or not math.isfinite(log_factor):
        raise ValueError("its correction is no number")
    return log_factor


def record_digest(record: dict[str, Any]) -> str:
    """Return the hex SHA-256 of the canonical record without its own digest."""
    content = {name: value for name, value in record.items() if name != DIGEST}
    return hashlib.sha256(canonical_json(content)).hexdigest()


def features_digest(features: NDArray[np.float32] | None) -> str | None:
    """Return the hex SHA-256 of the features as canonical JSON, null where missing."""
    if features is None:
        return None
    values = [None if math.isnan(value) else value for value in features.astype(float).tolist()]
    return hashlib.sha256(canonical_json(values)).hexdigest()


def backend_of(predictor: Predictor) -> dict[str, str]:
    """Return what ran the model: its name and the version of the library."""
    from importlib.metadata import version

    name = str(getattr(predictor, "backend", "onnxruntime"))
    return {"name": name, "version": version(name)}


def parse_record(text: str) -> dict[str, Any]:
    """Read a record, and check that it is whole.

    Raises:
        ValueError: it is no such record, or was altered.
    """
    record = json.loads(text)
    if not isinstance(record, dict) or record.get("kind") != KIND:
        raise ValueError(f"it is no {KIND}")
    if record.get("schema_version") != SCHEMA_VERSION:
        raise ValueError(f"its schema_version is not {SCHEMA_VERSION}")
    if record.get(DIGEST) != record_digest(record):
        raise ValueError(f"its {DIGEST} is not that of its content: it was altered")
    return record


def differences(kept: dict[str, Any], again: dict[str, Any]) -> tuple[str, ...]:
    """Return which entries of a record a re-run does not confirm.

    The backend, its version and the client's version may differ; figures may by a ten-thousandth.
    """
    one = {name: value for name, value in kept.items() if name not in NOT_COMPARED}
    other = {name: value for name, value in again.items() if name not in NOT_COMPARED}
    return tuple(_different(one, other, ""))


def _different(one: object, other: object, place: str) -> Iterator[str]:
    if isinstance(one, dict) and isinstance(other, dict):
        for name in sorted(one.keys() | other.keys()):
            inner = f"{place}.{name}".lstrip(".")
            yield from _different(one.get(name), other.get(name), inner)
    elif isinstance(one, list) and isinstance(other, list) and len(one) == len(other):
        for position, pair in enumerate(zip(one, other, strict=True)):
            yield from _different(*pair, f"{place}[{position}]")
    elif isinstance(one, float) and isinstance(other, float):
        close = math.isclose(one, other, rel_tol=RELATIVE_TOLERANCE, abs_tol=ABSOLUTE_TOLERANCE)
        if not close:
            yield place
    elif one != other:
        yield place


def _decisions(report: Report) -> list[dict[str, Any]]:
    if (
        report.days_to_failure_p50 is None
        or report.confidence is None
        or report.recommended_action is None
        or report.urgency is None
    ):
        return [
            {"decision": "no_prediction", "value": report.status.value, "rule": "status is not ok"}
        ]
    due = due_because(flagged=bool(report.flagged), days_to_failure=report.days_to_failure_p50)
    edges = [0.0, *ACTION_EDGES_DAYS, math.inf]
    spans = dict(zip(ACTIONS, pairwise(edges), strict=True))
    low, high = spans[report.recommended_action]
    span = f"{low:g} <= days_to_failure_p50" + ("" if math.isinf(high) else f" < {high:g}")
    level = confidence_level(report.confidence)
    found = (
        ("recommended_action", report.recommended_action.value, span),
        ("flagged", report.flagged, "failure_probability_30d >= thresholds.flag"),
        (
            "urgency",
            report.urgency.value,
            "the same spans of days_to_failure_p50, at least high where flagged",
        ),
        (
            "confidence_level",
            level.value,
            "confidence >= confidence_high: high; >= confidence_medium: medium; else low",
        ),
        (
            "notice_due",
            [code.value for code in due],
            f"flagged, or days_to_failure_p50 < {HORIZON_DAYS}",
        ),
    )
    return [{"decision": name, "value": value, "rule": rule} for name, value, rule in found]
