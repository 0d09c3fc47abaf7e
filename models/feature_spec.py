"""The feature specification: ordered features with unit, window, formula, range and layer (A3).

C is the median of the daily median capacities of the last 7 days; `reference` the median of the
first 10 valid capacities of the pack in use; `span` = max(reference − end of life, 2 % of design).
A margin is (C − end of life) / span: 1 = as new, 0 = end of life.
"""

from __future__ import annotations

import hashlib
import json
from typing import NamedTuple

FEATURE_SPEC_VERSION = "1"

GROUPS = (
    "capacity_level",
    "capacity_trend",
    "charging",
    "resistance",
    "temperature",
    "shutdowns",
    "usage",
    "age",
)


class Feature(NamedTuple):
    """One feature.

    Attributes:
        name: column name.
        unit: unit in words.
        window_days: days of readings that it looks back on.
        formula: how it is computed from readings.
        low: smallest meaningful value; the network sees lower ones as this one.
        high: largest meaningful value.
        layer: basic, temporal or interaction (A3).
        group: explanation group, one of `GROUPS`.
        log_scale: None, or the value around which the network's view turns from linear to
            logarithmic: symlog(x) = sign(x) · ln(1 + |x| / log_scale).
    """

    name: str
    unit: str
    window_days: int
    formula: str
    low: float
    high: float
    layer: str
    group: str
    log_scale: float | None = None


_LINE = "slope of a least-squares line through the daily median capacities"
FEATURES = (
    Feature("charge_cycle_count", "cycles", 0, "growth of the counter since new, resets undone",
            0, 5000, "basic", "age", 100),
    Feature("days_since_manufacture", "days", 0, "as_of - manufactured_at",
            0, 7300, "basic", "age", 100),
    Feature("charge_capacity_remaining", "fraction of design", 7, "C / design capacity",
            0.3, 1.3, "basic", "capacity_level"),
    Feature("avg_charge_time", "minutes", 30, "mean of the daily mean charge durations",
            1, 1440, "basic", "charging", 30),
    Feature("battery_temp_max", "degrees Celsius", 30, "maximum",
            -40, 90, "basic", "temperature"),
    Feature("battery_temp_avg", "degrees Celsius", 30, "mean of the daily means",
            -40, 70, "basic", "temperature"),
    Feature("unexpected_shutdowns", "count", 30, "growth of the counter in the window",
            0, 100, "basic", "shutdowns", 1),
    Feature("usage_intensity", "hours a day", 30, "24 x usage hours / hours covered by readings",
            0, 24, "basic", "usage"),
    Feature("charge_time_trend", "share of the reference in 30 days", 30,
            "30 x slope of the daily mean charge durations / first charge durations' median",
            -1, 1, "temporal", "charging", 0.05),
    Feature("health_margin", "margin", 7, "(C - end of life) / span",
            -1, 1.5, "basic", "capacity_level", 0.1),
    Feature("health_margin_design", "margin", 7,
            "(C - end of life) / max(design - end of life, 2 % of design)",
            -1, 2, "basic", "capacity_level", 0.1),
    Feature("health_margin_fitted_30d", "margin", 30,
            "(value at as_of of the 30-day line - end of life) / span",
            -1, 1.5, "temporal", "capacity_level", 0.1),
    Feature("health_margin_fitted_90d", "margin", 90,
            "(value at as_of of the 90-day line - end of life) / span",
            -1, 1.5, "temporal", "capacity_level", 0.1),
    Feature("capacity_slope_10d", "margin in 30 days", 10, f"30 x {_LINE} / span",
            -3, 3, "temporal", "capacity_trend", 0.02),
    Feature("capacity_slope_30d", "margin in 30 days", 30, f"30 x {_LINE} / span",
            -3, 3, "temporal", "capacity_trend", 0.02),
    Feature("capacity_slope_60d", "margin in 30 days", 60, f"30 x {_LINE} / span",
            -3, 3, "temporal", "capacity_trend", 0.02),
    Feature("capacity_slope_90d", "margin in 30 days", 90, f"30 x {_LINE} / span",
            -3, 3, "temporal", "capacity_trend", 0.02),
    Feature("fade_acceleration", "margin in 30 days", 90,
            "capacity_slope_30d - capacity_slope_90d", -3, 3, "interaction", "capacity_trend",
            0.02),
    Feature("capacity_scatter_30d", "margin", 30,
            "standard deviation of the daily median capacities around the 30-day line / span",
            0, 1, "temporal", "capacity_trend", 0.02),
    Feature("days_to_eol_linear_30d", "days", 30,
            "day on which the 30-day line crosses end of life; 3650 where it does not fall",
            0, 3650, "interaction", "capacity_trend", 3),
    Feature("days_to_eol_linear_90d", "days", 90,
            "day on which the 90-day line crosses end of life; 3650 where it does not fall",
            0, 3650, "interaction", "capacity_trend", 3),
    Feature("charge_time_ratio", "ratio", 7,
            "mean of the last 7 days' charge durations / median of the first 10",
            0.2, 5, "interaction", "charging"),
    Feature("resistance_ratio", "ratio", 7,
            "median of the last 7 days' resistances / median of the first 10",
            0.3, 5, "interaction", "resistance"),
    Feature("resistance_trend_90d", "share of the reference in 30 days", 90,
            "30 x slope of the daily median resistances / median of the first 10",
            -1, 1, "temporal", "resistance", 0.02),
    Feature("temp_spread", "degrees Celsius", 30,
            "mean of the daily maximum minus the daily mean temperature",
            0, 40, "interaction", "temperature"),
    Feature("unexpected_shutdowns_7d", "count", 7, "growth of the counter in the window",
            0, 50, "temporal", "shutdowns", 1),
    Feature("usage_change", "ratio", 90, "usage intensity of 7 days / that of 90 days",
            0, 5, "interaction", "usage"),
    Feature("cycles_per_day", "cycles a day", 30, "growth of the cycle counter / days covered",
            0, 10, "temporal", "usage", 0.5),
)  # fmt: skip

FEATURE_NAMES = tuple(feature.name for feature in FEATURES)
NUM_FEATURES = len(FEATURES)


def group_index() -> tuple[int, ...]:
    """Return each feature's position in `GROUPS`."""
    return tuple(GROUPS.index(feature.group) for feature in FEATURES)


def digest() -> str:
    """Return the SHA-256 of the specification: it travels with every model."""
    canonical = json.dumps(
        {"version": FEATURE_SPEC_VERSION, "features": [feature._asdict() for feature in FEATURES]},
        sort_keys=True,
        separators=(",", ":"),
    )
    return hashlib.sha256(canonical.encode()).hexdigest()


def feature_table() -> str:
    """Return the specification as a Markdown table (docs/reference/features.md)."""
    lines = ["| feature | unit | window | formula | range | layer | group |", "|" + "---|" * 7]
    for feature in FEATURES:
        window = f"{feature.window_days} days" if feature.window_days else "whole life"
        cells = (
            f"`{feature.name}`",
            feature.unit,
            window,
            feature.formula,
            f"{feature.low:g} to {feature.high:g}",
            feature.layer,
            feature.group,
        )
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"
