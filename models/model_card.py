"""The model card: what a model is for, what it learnt from, how good and how private it is."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

    from .metrics import Quality

SCHEMA_VERSION = 1
UNIT_DEVICE = "one device: all that it sends in one stream of releases (one run)"
NOT_APPLICABLE = "not applicable: trained on public and simulated data, no device took part"
PURPOSE = (
    "Says on the device how likely its battery fails within 30 days and when it will fail. Made "
    "for lithium-ion packs with a fuel gauge. Not for safety decisions."
)
LIMITS = (
    "Sudden deaths have no precursor; they bound the recall.",
    "Swelling and charger faults were learnt from simulation alone: no public set measures them.",
    "The gauge's bias shifts the day of end of life and cannot be seen from its own readings.",
    "Intervals are as wide as the spread of the training fleets; other chemistries may be wider.",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Epsilon:
    """One privacy figure with everything that it means.

    Attributes:
        value: ε; None = unbounded.
        delta: δ.
        unit_of_privacy: whose contribution is protected.
        assumptions: what must hold.
    """

    value: float | None
    delta: float | None
    unit_of_privacy: str
    assumptions: str


@dataclass(frozen=True, slots=True, kw_only=True)
class PrivacyStatement:
    """The three privacy figures of a model and the ledger entry that pays for it.

    Attributes:
        epsilon_release: against whoever receives the model.
        epsilon_server: against an honest but curious operator.
        record_epsilon: record-level DP-SGD on the device.
        ledger_entry: kind `public`, or the entry's kind, stream and hash.
    """

    epsilon_release: Epsilon
    epsilon_server: Epsilon
    record_epsilon: Epsilon
    ledger_entry: Mapping[str, Any]

    def said(self, name: str) -> str:
        """Return one of the three figures in words, with everything that it means."""
        if self.ledger_entry.get("kind") == "public":
            return NOT_APPLICABLE
        figure: Epsilon = getattr(self, name)
        value = "unbounded" if figure.value is None else f"{figure.value:.4g}"
        delta = "" if figure.delta is None else f" at δ = {figure.delta:g}"
        return f"{value}{delta}; unit of privacy: {figure.unit_of_privacy}; {figure.assumptions}"


def public_data_statement(sources: Mapping[str, str]) -> PrivacyStatement:
    """Return the statement of a model made from public data alone: no device's privacy is spent.

    Args:
        sources: digest of each source by its name.
    """
    nothing = Epsilon(
        value=0.0,
        delta=0.0,
        unit_of_privacy=UNIT_DEVICE,
        assumptions="made from simulated fleets and public cells alone; no device contributed",
    )
    return PrivacyStatement(
        epsilon_release=nothing,
        epsilon_server=nothing,
        record_epsilon=nothing,
        ledger_entry={"kind": "public", "sources": dict(sources)},
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelCard:
    """What travels with a model, for machines and for people.

    Attributes:
        title: name for people.
        purpose: what it is for, and what not.
        trained_on: what it learnt from, a line each.
        metrics: set of windows -> model name -> figures; baselines stand beside the model.
        privacy: the privacy statement.
        limits: what to know before relying on it, a line each.
    """

    title: str
    purpose: str
    trained_on: tuple[str, ...]
    metrics: Mapping[str, Mapping[str, Quality]]
    privacy: PrivacyStatement
    limits: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        """Return the card as plain values."""
        return {
            "schema_version": SCHEMA_VERSION,
            "title": self.title,
            "purpose": self.purpose,
            "trained_on": list(self.trained_on),
            "metrics": {
                windows: {name: asdict(quality) for name, quality in models.items()}
                for windows, models in self.metrics.items()
            },
            "privacy": asdict(self.privacy),
            "limits": list(self.limits),
        }

    def to_markdown(self) -> str:
        """Return the card as text; `{version}` stands where the version goes."""
        lines = [
            f"# {self.title}",
            "",
            "Version `{version}`",
            "",
            self.purpose,
            "",
            "## Learnt from",
        ]
        lines += ["", *(f"- {line}" for line in self.trained_on), ""]
        for windows, models in self.metrics.items():
            lines += _table(windows, models)
        lines += ["## Privacy", ""]
        for name in ("epsilon_release", "epsilon_server", "record_epsilon"):
            lines.append(f"- {name}: {self.privacy.said(name)}")
        lines.append(f"- ledger entry: {self.privacy.ledger_entry.get('kind')}")
        lines += ["", "## Limits", "", *(f"- {line}" for line in self.limits), ""]
        return "\n".join(lines)


def _table(windows: str, models: Mapping[str, Quality]) -> list[str]:
    some = next(iter(models.values()))
    prevalence = "unknown" if some.prevalence is None else f"{some.prevalence:.2%}"
    lines = [
        f"## {windows}",
        "",
        f"{some.num_windows:,} windows of 30 days, prevalence {prevalence}.",
        "",
        "| model | average precision | precision | recall | F1 | ECE |",
        "|---|---|---|---|---|---|",
    ]
    for name, quality in models.items():
        figures = (
            quality.average_precision,
            quality.precision,
            quality.recall,
            quality.f1,
            quality.ece,
        )
        cells = ["-" if figure is None else f"{figure:.3f}" for figure in figures]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return [*lines, ""]
