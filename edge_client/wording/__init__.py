"""The texts that an owner reads, as data: one JSON file a language in this folder.

A text is a list of alternatives with named fields, the most telling first. The first whose fields
are all known is used; where none is, the sentence is left out. Nothing is ever guessed.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

LANGUAGES = ("en", "de")
DEFAULT_LANGUAGE = "en"
FOLDER = Path(__file__).parent

FIELDS = {
    "device_model": "product name of the device",
    "capacity_mah": "capacity of a full charge now, mAh",
    "state_of_health_pct": "that capacity against design, percent",
    "capacity_loss_30d_pct": "how much it fell within 30 days, percent of design",
    "charge_time_longer_pct": "how much longer charging takes than 30 days before, percent",
    "charge_time_shorter_pct": "how much shorter charging takes than 30 days before, percent",
    "resistance_higher_pct": "internal resistance above that of the new pack, percent",
    "temp_max_c": "highest temperature within 30 days, degrees Celsius",
    "shutdowns_30d": "unexpected shutdowns within 30 days",
    "usage_hours_per_day": "hours in use a day",
    "charge_cycles": "full charge cycles so far",
    "days_low": "tenth percentile of the days to failure",
    "days_high": "ninetieth percentile of the days to failure",
    "confidence": "how sure the estimate is, in words",
    "similar_devices": "number of similar devices that the estimate rests on",
    "similar_failed_pct": "how many of them failed, percent",
    "similar_within_days": "within how many days they failed",
    "human_contact": "where the owner reaches a person",
    "span": "the band of days that the recommended action stands for, in words",
    "confidence_pct": "probability that the failure lies in that span, percent",
    "days_now": "the model's estimate, days",
    "days_after": "the model's estimate with a change, days",
    "limit_c": "temperature to stay below, degrees Celsius",
    "ceiling_pct": "where charging would end, percent of full",
    "action": "the recommended action, in words",
    "urgency": "how soon, in words",
    "less_pct": "by how much use would fall, percent",
    "conditions": "what the simpler rule found, joined by `and`",
    "name": "a feature in words",
    "limit": "where the simpler rule draws the line; with unit where it stands alone",
    "value": "the device's own value, with unit",
    "fidelity_pct": "share of equal decisions of the simpler rule and the model, percent",
}
"""Every field that a text may name, and what it says."""


@dataclass(frozen=True, slots=True)
class Wording:
    """All texts in one language.

    Attributes:
        language: its code.
        notices: by template, each with subject, sections and actions.
        confidence: by level of `models.prediction.Confidence`.
        reasons: alternatives by reason code.
        explanation: what else is said of a prediction: causes, actions and urgencies in words,
            spans, confidence, data that would help, changes, the simpler rule, features in words,
            the decimal mark.
    """

    language: str
    notices: Mapping[str, Mapping[str, Any]]
    confidence: Mapping[str, str]
    reasons: Mapping[str, Sequence[str]]
    explanation: Mapping[str, Any]


@cache
def load_wording(language: str) -> Wording:
    """Return the texts in a language, in English where there are none.

    Args:
        language: a code such as `de` or `de-AT`; the part before the hyphen decides.
    """
    short = language.partition("-")[0]
    known = short if short in LANGUAGES else DEFAULT_LANGUAGE
    data = json.loads((FOLDER / f"{known}.json").read_text(encoding="utf-8"))
    return Wording(known, data["notices"], data["confidence"], data["reasons"], data["explanation"])


def chosen_language(code: str) -> str:
    """Return a language that somebody asked for by name.

    Args:
        code: such as `de` or `de-AT`.

    Raises:
        ValueError: there are no texts in it; what a server asks for is English then, but who asks
            in person is told.
    """
    if code.partition("-")[0] not in LANGUAGES:
        raise ValueError(f"must be one of {', '.join(LANGUAGES)}, got {code[:40]!r}")
    return code


def fields_of(text: str) -> frozenset[str]:
    """Return the names of the fields that a text needs."""
    from string import Formatter

    return frozenset(name for _, name, _, _ in Formatter().parse(text) if name)


def fill(alternatives: Sequence[str], fields: Mapping[str, str]) -> str | None:
    """Return the first alternative whose fields are all known, filled in; None where none is."""
    for text in alternatives:
        if fields_of(text) <= fields.keys():
            return text.format_map(fields)
    return None
