"""Scenarios: the catalogue that ships with the package, and files of one's own.

A file holds `summary`, `description`, `devices`, `days` and `seed`; the tables `[recipe]` (knobs of
`FleetRecipe`), `[faults]` (fields of `fleet_faults.FaultPlan`) and `[prevalence]` (measured); and
perhaps `based_on`, a scenario of the catalogue whose knobs and faults it starts from. Whatever else
stands in a file is refused.
"""

from __future__ import annotations

import difflib
import math
import tomllib
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import SimulationsError
from ..fleet_faults import Fault, FaultPlan, Lies
from ..physics import live_fleet
from ..prevalence import summarise
from ..recipe import FleetRecipe
from ..truth import FleetTruth

if TYPE_CHECKING:
    from collections.abc import Mapping

_FOLDER = Path(__file__).parent
_SUFFIX = ".toml"
SCENARIO_NAMES = (
    "reference",
    "healthy",
    "ageing",
    "cold",
    "hot",
    "bad-lot",
    "noisy-gauge",
    "sparse-telemetry",
    "mixed-chemistry",
    "drift",
    "hostile",
)
"""The scenarios that ship with the package, in the order in which they are told of."""

_TEXTS = ("summary", "description")
_SIZES = ("devices", "days", "seed")
_TABLES = ("recipe", "faults", "prevalence")
_KEYS = ("based_on", *_TEXTS, *_SIZES, *_TABLES)
_FAULT_KEYS = tuple(
    field.name for field in fields(FaultPlan) if field.name not in {"seed", "trigger"}
)
_HALF_WIDTHS = 2.0
"""Failures of one device are one event for thirty days: counts of them scatter as Poisson does."""


class ScenarioError(SimulationsError):
    """A scenario is not known, or its file cannot be read as one.

    Attributes:
        where: the name or the file.
    """

    def __init__(self, where: object, what: str, remedy: str) -> None:
        """Say where, what is wrong and what to do."""
        self.where = str(where)
        super().__init__(f"{where}: {what}; {remedy}")


@dataclass(frozen=True, slots=True, kw_only=True)
class FleetPrevalence:
    """How often a fleet fails.

    Attributes:
        share: of the device-days at risk, those with a true failure within the next 30 days.
        failures: of first packs, by whose number the share scatters.
    """

    share: float
    failures: int

    @property
    def interval(self) -> tuple[float, float]:
        """Where the share of another seed lies about 19 times in 20."""
        spread = _HALF_WIDTHS * self.share / math.sqrt(max(self.failures, 1))
        return max(self.share - spread, 0.0), self.share + spread


@dataclass(frozen=True, slots=True, kw_only=True)
class StatedPrevalence:
    """What a scenario's file says of its prevalence.

    Attributes:
        share: 30-day prevalence over `days` days.
        failures: that were counted.
        devices: that were simulated for it.
        days: length of that study.
        seed: of that fleet, another one than the scenario's.
    """

    share: float
    failures: int
    devices: int
    days: int
    seed: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Scenario:
    """A fleet by name.

    Attributes:
        name: of the scenario, or of the file it was read from.
        summary: one line.
        description: what it is for, and what it differs in.
        devices: number of devices, unless told otherwise.
        days: of telemetry, unless told otherwise.
        seed: unless told otherwise.
        recipe: what the fleet is made of.
        faults: of its devices in rounds, and of their messages.
        prevalence: as measured; None where a file does not say.
    """

    name: str
    summary: str
    description: str
    devices: int
    days: int
    seed: int
    recipe: FleetRecipe
    faults: FaultPlan
    prevalence: StatedPrevalence | None

    def to_json(self) -> dict[str, Any]:
        """Return the scenario as JSON values, its recipe in full."""
        stated = self.prevalence
        return {
            "name": self.name,
            "summary": self.summary,
            "description": self.description,
            "devices": self.devices,
            "days": self.days,
            "seed": self.seed,
            "recipe": self.recipe.to_json(),
            "faults": {name: getattr(self.faults, name) for name in _FAULT_KEYS},
            "prevalence_30d": stated.share if stated else None,
        }


def load_scenario(name_or_file: str | Path) -> Scenario:
    """Return a scenario of the catalogue, or one from a file.

    Args:
        name_or_file: one of `SCENARIO_NAMES`, or the path of a TOML file.

    Raises:
        ScenarioError: there is none of that name, or the file cannot be read as one.
    """
    text = str(name_or_file)
    if text in SCENARIO_NAMES:
        return _read(_FOLDER / f"{text}{_SUFFIX}", name=text)
    path = Path(name_or_file)
    if path.suffix == _SUFFIX or path.is_file():
        return _read(path, name=path.stem)
    near = difflib.get_close_matches(text, SCENARIO_NAMES, n=1)
    what = "is no scenario" + (f"; did you mean {near[0]}?" if near else "")
    remedy = f"name one of {', '.join(SCENARIO_NAMES)}, or a TOML file of your own"
    raise ScenarioError(text, what, remedy)


def measured_prevalence(
    scenario: Scenario, *, devices: int, seed: int, processes: int = 1
) -> FleetPrevalence:
    """Let a scenario's fleet live and count its failures.

    Args:
        scenario: whose recipe and length.
        devices: at least 1.
        seed: of the fleet.
        processes: as in `physics.live_fleet`.
    """
    stated = scenario.prevalence
    truths = live_fleet(
        num_devices=devices,
        num_days=stated.days if stated else scenario.days,
        seed=seed,
        recipe=scenario.recipe,
        processes=processes,
    )
    summary = summarise(FleetTruth.joined(list(truths)))
    return FleetPrevalence(share=summary.prevalence_30d or 0.0, failures=summary.failures)


def _read(path: Path, *, name: str) -> Scenario:
    content = _content(path)
    knobs, faults = _start(path, content)
    knobs |= _table(path, content, "recipe")
    faults |= _table(path, content, "faults")
    try:
        recipe = FleetRecipe.of(knobs)
    except ValueError as error:
        raise ScenarioError(path, f"[recipe]: {error}", "correct it") from error
    for key in (*_TEXTS, *_SIZES):
        if key not in content:
            raise ScenarioError(path, f"{key} is missing", "add it")
    sizes = {key: _whole(path, key, content[key]) for key in _SIZES}
    for key in _TEXTS:
        if not isinstance(content[key], str) or not content[key].strip():
            raise ScenarioError(path, f"{key} must be a text, got {content[key]!r:.60}", "write it")
    return Scenario(
        name=name,
        summary=content["summary"].strip(),
        description=content["description"].strip(),
        recipe=recipe,
        faults=_faults(path, faults),
        prevalence=_prevalence(path, content),
        **sizes,
    )


def _content(path: Path) -> dict[str, Any]:
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ScenarioError(path, error.strerror or "cannot be read", "check the path") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ScenarioError(path, f"is not TOML: {error}", "correct the file") from error
    _refuse_unknown(path, content, _KEYS, where="a scenario")
    return content


def _start(path: Path, content: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the knobs and faults of the scenario that a file is based on."""
    if "based_on" not in content:
        return {}, {}
    base = content["based_on"]
    if base not in SCENARIO_NAMES or base == path.stem:
        names = ", ".join(SCENARIO_NAMES)
        raise ScenarioError(path, f"based_on cannot be {base!r:.60}", f"name one of {names}")
    below = _FOLDER / f"{base}{_SUFFIX}"
    content = _content(below)
    knobs, faults = _start(below, content)
    return knobs | content.get("recipe", {}), faults | content.get("faults", {})


def _table(path: Path, content: Mapping[str, Any], key: str) -> dict[str, Any]:
    table = content.get(key, {})
    if not isinstance(table, dict):
        raise ScenarioError(path, f"{key} must be a table", f"write [{key}]")
    return table


def _refuse_unknown(
    path: Path, content: Mapping[str, Any], known: tuple[str, ...], *, where: str
) -> None:
    for key in content:
        if key not in known:
            near = difflib.get_close_matches(key, known, n=1)
            hint = f"did you mean {near[0]}?" if near else f"known are {', '.join(known)}"
            raise ScenarioError(path, f"{where} has no {key!r}", hint)


def _whole(path: Path, key: str, value: Any, *, least: int = 0) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        what = f"{key} must be a whole number of at least {least}, got {value!r:.60}"
        raise ScenarioError(path, what, "correct it")
    return value


def _faults(path: Path, faults: dict[str, Any]) -> FaultPlan:
    _refuse_unknown(path, faults, _FAULT_KEYS, where="[faults]")
    try:
        for key in ("reply_faults", "poisons"):
            if key in faults:
                faults[key] = tuple(Fault(name) for name in faults[key])
        if "lies" in faults:
            faults["lies"] = Lies(faults["lies"])
        return FaultPlan(**faults)
    except (TypeError, ValueError) as error:
        raise ScenarioError(path, f"[faults]: {error}", "correct it") from error


def _prevalence(path: Path, content: Mapping[str, Any]) -> StatedPrevalence | None:
    table = _table(path, content, "prevalence")
    if not table:
        return None
    known = tuple(field.name for field in fields(StatedPrevalence))
    _refuse_unknown(path, table, known, where="[prevalence]")
    for key in known:
        if key not in table:
            raise ScenarioError(path, f"[prevalence] lacks {key}", "add it, or leave the table out")
    share = table["share"]
    if not isinstance(share, float) or not 0 <= share <= 1:
        what = f"share must be a fraction, got {share!r:.60}"
        raise ScenarioError(path, what, "correct it")
    whole = {key: _whole(path, key, table[key]) for key in known if key != "share"}
    return StatedPrevalence(share=share, **whole)
