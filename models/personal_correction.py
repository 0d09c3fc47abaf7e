"""What a device's own forecasts were worth, and how far that shortens the next one.

A forecast of p50 days says how fast the battery should wear until then: by even steps its health
margin reaches 0, or its resistance twice the first one, on that day. Two weeks later the device
knows what came. The ratio of the wear that was measured to the wear that was forecast, summed over
forecasts with older ones fading out, is by how much the next forecast is too long. Of capacity and
resistance the one that wears faster beyond its forecast counts.

The correction only shortens: batteries wear slowly before they wear fast, so slower wear than
forecast is no reason to hope. It is bounded, reaches its bound in steps, ends at once where its
reason ends, and leaves what is near alone: below 30 days nothing changes, and nothing is brought
below 30 days. Probability and flag stay the model's.

Measured wear is the battery's, forecast wear the model's. Under a new model of the same features
the first stays; the second is brought to what the new model would have said, in proportion to what
both models say of the same days.

Every value is an array of shape (n,): one entry on a device, one for each device of a fleet in an
evaluation.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from .feature_spec import FEATURE_NAMES
from .prediction import ACTION_EDGES_DAYS, HORIZON_DAYS

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    Floats = NDArray[np.float64]

JUDGED_AFTER_DAYS = 14.0
"""Age at which a forecast is judged; at most one step in this time."""
FORGOTTEN_AFTER_DAYS = 42.0
"""A forecast that could not be judged until then is dropped: silence, or a clock that jumped."""
LEAST_FORECASTS = 2
KEPT_SHARE = 0.95
"""Weight of what is older, a forecast: half of it is left after 27 weeks."""
PRIOR_MARGIN = 0.03
PRIOR_RESISTANCE = 0.1
"""Wear added to what was measured and to what was forecast: below it gauges tell nothing."""
LARGEST_CHANGE = 0.3
"""More wear in one step counts as this much. What comes back counts whole, as wear that was none:
measured wear then falls to no less than the negative of this."""
LEAST_LOG_FACTOR = -0.7
"""The bound: p50 is at least halved, exp(-0.7) = 0.497."""
LEAST_BY_RESISTANCE = -0.25
"""Bound where resistance alone speaks for it though margin is measured: a contact may be dirty."""
LARGEST_STEP = 0.25
"""The log factor falls by at most this much at a step; it rises to what is wanted at once."""
KEPT_FOR_NEW_MODEL = 0.9
"""Weight of what was learnt under another model."""
GREATEST_RATIO = 10.0
"""Of what two models say of one day; beyond it what was learnt of one says nothing of the other."""
FULL_FROM_DAYS = 120.0
"""Shorter forecasts are shortened in proportion to their length."""
END_OF_RESISTANCE = 2.0

_LEAST_MARGIN_LEFT = 0.02
_LEAST_RESISTANCE_LEFT = 0.05
_MARGIN, _FITTED_MARGIN, _RESISTANCE = (
    FEATURE_NAMES.index(name)
    for name in ("health_margin", "health_margin_fitted_30d", "resistance_ratio")
)
_QUANTILES_AT = -np.log1p(-np.array((0.1, 0.5, 0.9)))
_LEAST_SURVIVAL = 1e-9


class Correction(NamedTuple):
    """What was learnt: seven numbers a device.

    Attributes:
        log_factor: in force, −0.7 to 0.
        margin_measured: loss of health margin that was measured, older ones fading.
        margin_forecast: what the forecasts said it would be.
        num_margins: forecasts that went in.
        resistance_measured: growth of the resistance ratio, likewise.
        resistance_forecast: what the forecasts said.
        num_resistances: forecasts that went in; 0 where resistance is not measured.
    """

    log_factor: Floats
    margin_measured: Floats
    margin_forecast: Floats
    num_margins: Floats
    resistance_measured: Floats
    resistance_forecast: Floats
    num_resistances: Floats

    @staticmethod
    def none(count: int = 1) -> Correction:
        """Return that nothing was learnt yet."""
        return Correction(*np.zeros((len(Correction._fields), count)))


class Forecast(NamedTuple):
    """A forecast that waits to be judged.

    Attributes:
        day: on which it was made, days since the epoch, NaN = there is none.
        margin: health margin then, NaN = not measured.
        resistance_ratio: resistance against the first one then, NaN = not measured.
        days: p50, as the model alone said it.
    """

    day: Floats
    margin: Floats
    resistance_ratio: Floats
    days: Floats

    @staticmethod
    def none(count: int = 1) -> Forecast:
        """Return that no forecast waits."""
        return Forecast(*np.full((len(Forecast._fields), count), np.nan))


def forecast_of(
    features: NDArray[np.float32], days_p50: NDArray[np.floating], day: Floats
) -> Forecast:
    """Return what is measured today, and what the model says.

    Args:
        features: shape (n, n_features), raw values.
        days_p50: shape (n,), of the model alone.
        day: shape (n,), days since the epoch.
    """
    fitted = features[:, _FITTED_MARGIN].astype(np.float64)
    margin = np.where(np.isfinite(fitted), fitted, features[:, _MARGIN])
    return Forecast(
        day=np.asarray(day, np.float64),
        margin=margin,
        resistance_ratio=features[:, _RESISTANCE].astype(np.float64),
        days=np.maximum(np.asarray(days_p50, np.float64), 1.0),
    )


def learnt(correction: Correction, made: Forecast, today: Forecast) -> tuple[Correction, Forecast]:
    """Judge the forecasts that are old enough, and let today's wait in their place.

    Args:
        correction: so far.
        made: the forecasts that wait.
        today: what is measured and forecast today.

    Returns:
        The correction from now on, and the forecasts that wait from now on.
    """
    age = today.day - made.day
    is_judged = (age >= JUDGED_AFTER_DAYS) & (age <= FORGOTTEN_AFTER_DAYS)
    waits_on = (age >= 0) & (age < JUDGED_AFTER_DAYS)
    share = np.minimum(age / made.days, 1.0)
    margins = _summed(
        correction[1:4],
        measured=made.margin - today.margin,
        forecast=np.maximum(made.margin, _LEAST_MARGIN_LEFT) * share,
        where=is_judged,
    )
    resistances = _summed(
        correction[4:7],
        measured=today.resistance_ratio - made.resistance_ratio,
        forecast=np.maximum(END_OF_RESISTANCE - made.resistance_ratio, _LEAST_RESISTANCE_LEFT)
        * share,
        where=is_judged,
    )
    step = np.maximum(_wanted(margins, resistances) - correction.log_factor, -LARGEST_STEP)
    log_factor = np.where(is_judged, correction.log_factor + step, correction.log_factor)
    waiting = Forecast(
        *(np.where(waits_on, old, new) for old, new in zip(made, today, strict=True))
    )
    return Correction(log_factor, *margins, *resistances), waiting


def handed_on(
    correction: Correction,
    made: Forecast,
    today: Forecast,
    *,
    weight: float = KEPT_FOR_NEW_MODEL,
) -> tuple[Correction, Forecast]:
    """Bring what was learnt under one model to another one of the same features.

    The correction may weaken by that, never strengthen. It begins anew where no forecast waits, or
    where it is too old to be judged, or where the models say too different things.

    Args:
        correction: so far.
        made: the forecasts that wait, of the model before.
        today: what is measured today, and what the new model says.
        weight: of what was learnt so far; 1 where it was reduced for a new model a short while ago.

    Returns:
        Both as if the new model had forecast from the beginning.
    """
    age = today.day - made.day
    new_days = today.days + age
    ratio = np.where((age >= 0) & (age <= FORGOTTEN_AFTER_DAYS), made.days / new_days, np.nan)
    fits = (ratio <= GREATEST_RATIO) & (ratio >= 1.0 / GREATEST_RATIO)
    kept = np.where(fits, weight, 0.0)
    kept_forecast = kept * np.where(fits, ratio, 1.0)
    margins, resistances = (
        (measured * kept, forecast * kept_forecast, np.where(fits, count, 0.0))
        for measured, forecast, count in (correction[1:4], correction[4:7])
    )
    log_factor = np.maximum(correction.log_factor, _wanted(margins, resistances))
    waiting = made._replace(days=new_days)
    return (
        Correction(log_factor, *margins, *resistances),
        Forecast(*(np.where(fits, value, np.nan) for value in waiting)),
    )


def corrected_days(days_p50: NDArray[np.floating], log_factor: Floats) -> Floats:
    """Return p50 as corrected: never longer than the model's, unchanged below 30 days.

    Args:
        days_p50: shape (n,), of the model alone.
        log_factor: shape (n,), −0.7 to 0.
    """
    days = np.asarray(days_p50, np.float64)
    bounded = np.clip(np.nan_to_num(log_factor, nan=0.0), LEAST_LOG_FACTOR, 0.0)
    shorter = days * np.exp(bounded * np.minimum(days / FULL_FROM_DAYS, 1.0))
    return np.maximum(shorter, np.minimum(days, HORIZON_DAYS))


def corrected_outputs(
    outputs: Mapping[str, NDArray[np.float32]], log_factor: Floats
) -> dict[str, NDArray[np.float32]]:
    """Return a graph's outputs as corrected: time runs as much faster as p50 is shorter.

    The three quantiles shrink alike. The probabilities of the actions' bands are read from the
    model's cumulative hazard at the later moments; it is known at the edges of the bands and at the
    quantiles, and taken as straight between them. All else stays.

    Args:
        outputs: of n rows, by name.
        log_factor: shape (n,).
    """
    days = outputs["days_to_failure"].astype(np.float64)
    share = corrected_days(days[:, 1], log_factor) / np.maximum(days[:, 1], 1.0)
    bands = outputs["action_probabilities"]
    is_changed = (share < 1.0) & (days[:, 1] > HORIZON_DAYS)
    scaled = bands.copy()
    for row in np.flatnonzero(is_changed).tolist():
        scaled[row] = _bands_at(bands[row], days[row], share[row])
    shorter = np.where(is_changed[:, None], days * share[:, None], days)
    return dict(outputs) | {
        "days_to_failure": shorter.astype(np.float32),
        "action_probabilities": scaled,
    }


def _summed(
    before: tuple[Floats, ...], *, measured: Floats, forecast: Floats, where: NDArray[np.bool_]
) -> tuple[Floats, Floats, Floats]:
    counts = where & np.isfinite(measured)
    change = np.minimum(np.nan_to_num(measured), LARGEST_CHANGE)
    wear = np.maximum(KEPT_SHARE * before[0] + change, -LARGEST_CHANGE)
    return (
        np.where(counts, wear, before[0]),
        np.where(counts, KEPT_SHARE * before[1] + forecast, before[1]),
        np.where(counts, before[2] + 1.0, before[2]),
    )


def _wanted(margins: tuple[Floats, ...], resistances: tuple[Floats, ...]) -> Floats:
    """Return the log factor that the sums speak for."""
    by_margin = -_beyond(margins, PRIOR_MARGIN)
    least = np.where(np.isfinite(by_margin), LEAST_BY_RESISTANCE, LEAST_LOG_FACTOR)
    by_resistance = np.maximum(-_beyond(resistances, PRIOR_RESISTANCE), least)
    return np.clip(np.minimum(by_margin, by_resistance), LEAST_LOG_FACTOR, 0.0)


def _beyond(sums: tuple[Floats, ...], prior: float) -> Floats:
    """Return by how much wear was beyond its forecast, in logarithms; −inf where not known."""
    measured, forecast, count = sums
    ratio = (np.maximum(measured, 0.0) + prior) / (forecast + prior)
    return np.where(count >= LEAST_FORECASTS, np.log(ratio), -np.inf)


def _bands_at(bands: NDArray[np.float32], days: Floats, share: float) -> NDArray[np.float32]:
    survival = np.clip(1.0 - np.cumsum(bands[:-1].astype(np.float64)), _LEAST_SURVIVAL, 1.0)
    at = np.concatenate([[0.0], ACTION_EDGES_DAYS, days])
    hazard = np.concatenate([[0.0], -np.log(survival), _QUANTILES_AT])
    order = np.argsort(at, kind="stable")
    rising = np.maximum.accumulate(hazard[order])
    later = np.interp(np.array(ACTION_EDGES_DAYS) / share, at[order], rising)
    edges = np.concatenate([[1.0], np.exp(-later), [0.0]])
    scaled: NDArray[np.float32] = (edges[:-1] - edges[1:]).astype(np.float32)
    return scaled
