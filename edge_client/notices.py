"""A notice and the device's own figures -> what the owner reads. No IO, no clock, no guesses."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from models.prediction import confidence_level

from .wording import fill

if TYPE_CHECKING:
    from collections.abc import Mapping

    from models.device_report import DeviceFigures
    from models.prediction import Reason, Report
    from models.telemetry import DeviceProfile
    from models.wire.messages import Notice

    from .wording import Wording


@dataclass(frozen=True, slots=True)
class Section:
    """A heading with the sentences under it."""

    heading: str
    sentences: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class ShownNotice:
    """What the owner reads.

    Attributes:
        template: which of the notices it is.
        language: in which it is written.
        subject: one line.
        sections: what was found, what comes next, whom to reach.
        actions: what the owner may choose, by code, with its label.
    """

    template: str
    language: str
    subject: str
    sections: tuple[Section, ...]
    actions: Mapping[str, str]

    def text(self) -> str:
        """Return the notice as plain text."""
        blocks = ["\n  ".join([section.heading, *section.sentences]) for section in self.sections]
        choices = "\n".join(f"[ {label} ]" for label in self.actions.values())
        return "\n\n".join([self.subject, *blocks, choices])

    def as_json(self) -> dict[str, object]:
        """Return the notice for an application to lay out."""
        return {
            "template": self.template,
            "language": self.language,
            "subject": self.subject,
            "sections": [
                {"heading": section.heading, "sentences": list(section.sentences)}
                for section in self.sections
            ],
            "actions": dict(self.actions),
            "text": self.text(),
        }


def own_fields(
    *, report: Report, figures: DeviceFigures, profile: DeviceProfile, wording: Wording
) -> dict[str, str]:
    """Return the device's own figures as text, by the names of `wording.FIELDS`.

    Figures are whole numbers. What is not known, or too small to be worth a sentence, has no entry.
    """
    fields = {"device_model": profile.device_model}

    def add(name: str, value: float | None, *, least: float = 0.0) -> None:
        if value is not None and value >= least:
            fields[name] = f"{value:.0f}"

    add("capacity_mah", figures.capacity_mah)
    add("state_of_health_pct", figures.state_of_health_pct)
    add("capacity_loss_30d_pct", _negative(figures.capacity_change_30d_pct), least=1)
    charge_time_change_pct = _against_a_month_ago(
        now_pct=figures.charge_time_change_pct, change_30d_pct=figures.charge_time_change_30d_pct
    )
    add("charge_time_longer_pct", charge_time_change_pct, least=1)
    add("charge_time_shorter_pct", _negative(charge_time_change_pct), least=1)
    add("resistance_higher_pct", figures.resistance_change_pct, least=1)
    add("temp_max_c", figures.temp_max_c, least=-273)
    add("shutdowns_30d", figures.shutdowns_30d)
    add("usage_hours_per_day", figures.usage_hours_per_day, least=1)
    add("charge_cycles", figures.charge_cycle_count, least=1)
    if report.days_to_failure_p10 is not None and report.days_to_failure_p90 is not None:
        low, high = math.floor(report.days_to_failure_p10), math.ceil(report.days_to_failure_p90)
        add("days_high", high, least=2)
        add("days_low", low if low < high else None, least=1)
    if report.confidence is not None:
        fields["confidence"] = wording.confidence[confidence_level(report.confidence).value]
    return fields


def render_notice(notice: Notice, own_fields: Mapping[str, str], wording: Wording) -> ShownNotice:
    """Fill a notice with the device's own figures.

    Args:
        notice: template, bands and contact, as the server sent it.
        own_fields: the device's figures as text, by the names of `wording.FIELDS`; a sentence
            whose figure is missing is left out.
        wording: the texts in the owner's language.
    """
    fields = {
        "confidence": wording.confidence[notice.confidence.value],
        **own_fields,
        "human_contact": notice.human_contact,
    }
    template = wording.notices[notice.template.value]
    sections = []
    for section in template["sections"]:
        filled = (fill(alternatives, fields) for alternatives in section["sentences"])
        sentences = tuple(sentence for sentence in filled if sentence is not None)
        if sentences:
            sections.append(Section(section["heading"], sentences))
    return ShownNotice(
        template=notice.template.value,
        language=wording.language,
        subject=fill(template["subject"], fields) or "",
        sections=tuple(sections),
        actions=template["actions"],
    )


def reason_sentences(
    reasons: tuple[Reason, ...], own_fields: Mapping[str, str], wording: Wording
) -> tuple[str, ...]:
    """Say each reason in one sentence, with the device's own figures where they are known."""
    sentences = (fill(wording.reasons[reason.code], own_fields) for reason in reasons)
    return tuple(sentence for sentence in sentences if sentence is not None)


def _against_a_month_ago(*, now_pct: float | None, change_30d_pct: float | None) -> float | None:
    """Return a change in percent of the value 30 days ago; both arguments are in percent of new."""
    if now_pct is None or change_30d_pct is None:
        return None
    a_month_ago = 100 + now_pct - change_30d_pct
    return 100 * change_30d_pct / a_month_ago if a_month_ago > 0 else None


def _negative(value: float | None) -> float | None:
    return None if value is None else -value
