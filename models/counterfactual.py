"""What an owner could change, and what the model would then estimate (A5).

A change is tried as if the last 30 days had been so: the features that it touches are rewritten,
all others stay, and the model runs once over all changes together. Which change touches what, and
what is assumed (docs/explanation/explanations.md says it for readers):

* temperature, kept below X °C: the highest temperature becomes X, the mean at most X, and the mean
  of the daily maximum minus the daily mean at most X minus that mean, which no capped day exceeds.
  Readings that lie below X stay, so a mean below X is not touched: the gain is not overstated.
* charging ceiling, 80 % instead of full: no feature tells where charging ends, but the speed of
  fading shows. In Schmalstieg et al. 2014 (J. Power Sources 257:325) a mean cell voltage of 3.8 V
  instead of 3.9 V, which is about what 80 % instead of full makes of the same depth of use, slows
  ageing on the shelf to .87 (equation for α) and by use to .93 (equation for β): .9, taken as equal
  parts. Falling capacity lines are flattened to it by the share of their days that 30 days are, and
  the days to their crossing follow. Assumes charging to full today, and a cell whose voltage rises
  with its charge: not offered for LFP.
* use, 25 % or 50 % less: hours of use and full cycles a day fall by that share, and the use of the
  last week against 90 days accordingly.

Nothing is offered that is true of the device already, whose features were not measured, or whose
effect the model sees the wrong way round for this device: the same change in the harmful direction
must not lengthen the estimate, no stronger step may shorten it (2 % are tolerated), and the
probability of a failure within 30 days must not rise.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from .feature_spec import FEATURE_NAMES, FEATURES
from .prediction import ACTION_EDGES_DAYS

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from .inference import Predictor

    Row = NDArray[np.float32]

TEMPERATURE_LIMITS_C = (45.0, 40.0, 35.0, 30.0)
LEAST_COOLING_C = 1.0
CEILING_PCT = 80.0
CEILING_FADE = 0.9
NO_CEILING_FOR = ("LFP",)
LESS_USE_PCT = (25.0, 50.0)
HARMFUL_HEAT_C = 5.0
HARMFUL_USE = 1.25
LEAST_GAIN_DAYS = 7.0
LEAST_GAIN_SHARE = 0.1
TOLERATED_SHARE = 0.02
LONGEST_ESTIMATE_DAYS = 365.0
SHORTEST_ESTIMATE_DAYS = ACTION_EDGES_DAYS[0]
_WINDOW_DAYS = 30
_LINES_DAYS = (10, 30, 60, 90)
_NEVER_DAYS = 3650.0
_AT = {name: index for index, name in enumerate(FEATURE_NAMES)}
_LOW = np.array([feature.low for feature in FEATURES], np.float32)
_HIGH = np.array([feature.high for feature in FEATURES], np.float32)


class Lever(StrEnum):
    """What an owner can change."""

    TEMPERATURE = "temperature"
    CHARGING_CEILING = "charging_ceiling"
    USE = "use"


class Search(StrEnum):
    """How the search for a change ended."""

    FOUND = "found"
    NOT_FOUND = "not_found"
    NOT_NEEDED = "not_needed"
    TOO_LATE = "too_late"


@dataclass(frozen=True, slots=True)
class Change:
    """One thing that an owner could do otherwise.

    Attributes:
        lever: what is changed.
        amount: the limit in degrees Celsius, the ceiling in percent of full, or by how many
            percent hours and cycles a day fall.
        effort: how much is asked for: 5 °C less than the highest temperature count 1, an 80 %
            ceiling 2, a quarter less use 2, half the use 4.
    """

    lever: Lever
    amount: float
    effort: float


class Estimate(NamedTuple):
    """What the model says.

    Attributes:
        days: the estimate (p50) of the days to failure.
        probability: of a failure within 30 days.
    """

    days: float
    probability: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Counterfactual:
    """What the search found.

    Attributes:
        search: whether there is a change worth telling, and if not, why.
        now: the model's estimate as it is.
        change: the smallest one with a gain worth telling; None unless found.
        after: the model's estimate with it; None unless found.
        num_tried: changes that were run through the model.
    """

    search: Search
    now: Estimate
    change: Change | None = None
    after: Estimate | None = None
    num_tried: int = 0


class Trial(NamedTuple):
    """A change with the features that it would have made.

    Attributes:
        change: None for the harmful direction of the lever, which is only a probe.
        lever: what is changed.
        features: float32, shape (n_features,).
    """

    change: Change | None
    lever: Lever
    features: Row


def find_counterfactual(
    predictor: Predictor, features: Row, *, chemistry: str, now: Estimate
) -> Counterfactual:
    """Search for the smallest change that lengthens the estimate by what is worth telling.

    Worth telling are at least 7 days and a tenth more. Above a year nothing needs to change; below
    7 days a change comes too late. The model is run once.

    Args:
        predictor: the model.
        features: float32, shape (n_features,), raw values of the device.
        chemistry: of the device's profile.
        now: the model's estimate for these features.
    """
    if now.days >= LONGEST_ESTIMATE_DAYS:
        return Counterfactual(search=Search.NOT_NEEDED, now=now)
    if now.days < SHORTEST_ESTIMATE_DAYS:
        return Counterfactual(search=Search.TOO_LATE, now=now)
    trials = trials_of(features, chemistry=chemistry)
    num_tried = sum(trial.change is not None for trial in trials)
    if num_tried == 0:
        return Counterfactual(search=Search.NOT_FOUND, now=now)
    outputs = predictor.outputs(np.stack([trial.features for trial in trials]))
    days = outputs["days_to_failure"][:, 1].astype(float)
    probability = outputs["failure_probability_30d"].astype(float)
    estimates = [Estimate(*pair) for pair in zip(days.tolist(), probability.tolist(), strict=True)]
    best = choose(trials, estimates, now=now)
    if best is None:
        return Counterfactual(search=Search.NOT_FOUND, now=now, num_tried=num_tried)
    change, after = best
    return Counterfactual(
        search=Search.FOUND, now=now, change=change, after=after, num_tried=num_tried
    )


def trials_of(features: Row, *, chemistry: str) -> list[Trial]:
    """Return every change open to this device, each lever from mild to strong after its probe."""
    return [*_cooler(features), *_lower_ceiling(features, chemistry), *_less_use(features)]


def choose(
    trials: list[Trial], estimates: list[Estimate], *, now: Estimate
) -> tuple[Change, Estimate] | None:
    """Return the change with the least effort whose gain is worth telling, with its estimate.

    Args:
        trials: as `trials_of` returns them.
        estimates: what the model says of each.
        now: what it says without a change.
    """
    wanted = now.days + max(LEAST_GAIN_DAYS, LEAST_GAIN_SHARE * now.days)
    found: list[tuple[Change, Estimate]] = []
    implausible: set[Lever] = set()
    reached: dict[Lever, float] = {}
    for trial, estimate in zip(trials, estimates, strict=True):
        lever, change = trial.lever, trial.change
        if change is None:
            if estimate.days > now.days * (1 + TOLERATED_SHARE):
                implausible.add(lever)
            continue
        if estimate.days < reached.get(lever, now.days) * (1 - TOLERATED_SHARE):
            implausible.add(lever)
        reached[lever] = estimate.days
        if estimate.days >= wanted and estimate.probability <= now.probability:
            found.append((change, estimate))
    plausible = [entry for entry in found if entry[0].lever not in implausible]
    return min(plausible, key=lambda entry: (entry[0].effort, -entry[1].days), default=None)


def _cooler(features: Row) -> list[Trial]:
    highest = float(features[_AT["battery_temp_max"]])
    if not np.isfinite(highest):
        return []
    hotter = features.copy()
    for name in ("battery_temp_max", "battery_temp_avg"):
        hotter[_AT[name]] += HARMFUL_HEAT_C
    trials = [Trial(None, Lever.TEMPERATURE, _within_range(hotter))]
    for limit in TEMPERATURE_LIMITS_C:
        if highest < limit + LEAST_COOLING_C:
            continue
        cooler = features.copy()
        mean = min(float(features[_AT["battery_temp_avg"]]), limit)
        cooler[_AT["battery_temp_max"]] = limit
        if np.isfinite(features[_AT["battery_temp_avg"]]):
            cooler[_AT["battery_temp_avg"]] = mean
            spread = float(features[_AT["temp_spread"]])
            cooler[_AT["temp_spread"]] = min(spread, limit - mean) if spread >= 0 else spread
        change = Change(Lever.TEMPERATURE, limit, (highest - limit) / 5.0)
        trials.append(Trial(change, Lever.TEMPERATURE, _within_range(cooler)))
    return trials


def _lower_ceiling(features: Row, chemistry: str) -> list[Trial]:
    if chemistry.upper().startswith(NO_CEILING_FOR):
        return []
    slopes = features[[_AT[f"capacity_slope_{days}d"] for days in _LINES_DAYS]]
    if not (slopes < 0).any():
        return []
    change = Change(Lever.CHARGING_CEILING, CEILING_PCT, 2.0)
    return [
        Trial(None, Lever.CHARGING_CEILING, _fading_at(features, 1 / CEILING_FADE)),
        Trial(change, Lever.CHARGING_CEILING, _fading_at(features, CEILING_FADE)),
    ]


def _fading_at(features: Row, speed: float) -> Row:
    """Return the features after 30 days of fading at `speed` times today's."""
    changed = features.copy()
    for days in _LINES_DAYS:
        at = _AT[f"capacity_slope_{days}d"]
        if changed[at] < 0:
            changed[at] *= 1 - min(_WINDOW_DAYS / days, 1.0) * (1 - speed)
    changed[_AT["fade_acceleration"]] = (
        changed[_AT["capacity_slope_30d"]] - changed[_AT["capacity_slope_90d"]]
    )
    for days in (30, 90):
        margin = float(changed[_AT[f"health_margin_fitted_{days}d"]])
        fall = -float(changed[_AT[f"capacity_slope_{days}d"]]) / _WINDOW_DAYS
        if np.isfinite(margin) and margin > 0 and fall > 0:
            changed[_AT[f"days_to_eol_linear_{days}d"]] = min(margin / fall, _NEVER_DAYS)
    return _within_range(changed)


def _less_use(features: Row) -> list[Trial]:
    if not np.isfinite(features[[_AT["usage_intensity"], _AT["cycles_per_day"]]]).any():
        return []
    trials = [Trial(None, Lever.USE, _used(features, HARMFUL_USE))]
    for less in LESS_USE_PCT:
        change = Change(Lever.USE, less, 2.0 * less / LESS_USE_PCT[0])
        trials.append(Trial(change, Lever.USE, _used(features, 1 - less / 100)))
    return trials


def _used(features: Row, share: float) -> Row:
    changed = features.copy()
    for name in ("usage_intensity", "cycles_per_day"):
        changed[_AT[name]] *= share
    # Thirty of the ninety days that the last week is compared with are changed too.
    changed[_AT["usage_change"]] *= share / (2 / 3 + share / 3)
    return _within_range(changed)


def _within_range(features: Row) -> Row:
    clipped: Row = np.clip(features, _LOW, _HIGH)
    return clipped
