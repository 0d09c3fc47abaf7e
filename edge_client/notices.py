"""A notice and the device's own figures -> what the owner reads. No IO, no clock, no guesses."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from .wording import fill

if TYPE_CHECKING:
    from collections.abc import Mapping

    from models.prediction import Reason
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
