"""Optional noise on what a summary tells of the battery (B7): k-ary randomised response.

Four fields are told: risk (band of days together with the flag), health, confidence and likeliest
issue. Each is one of k categories. The true one is told with probability q / (q + k − 1), every
other one with 1 / (q + k − 1), where q is the largest multiple of 2⁻¹⁶ that a partial sum of the
series of e^ε reaches: q ≤ e^ε, so no two true categories make any answer more than e^ε times as
likely (Warner 1965; Kairouz, Oh and Viswanath 2016, J. Mach. Learn. Res. 17:17, show the mechanism
to be optimal under this bound for larger ε). Weights are whole numbers and the draw is one whole
number of the operating system's generator, so no rounding tells anything.

A category is drawn for once in the life of the store and told again whenever it returns (permanent
randomised response: Erlingsson, Pihur and Korolova 2014, RAPPOR), so that repeating averages
nothing away. The guarantee is ε for each field and category drawn for, one device's category being
the unit; it adds up over draws. That something changed, and when, is not hidden where the answers
differ. At most `MAX_DRAWS_A_YEAR` a field are drawn within 365 days; after that the field keeps its
last answer. Urgency, flag and all bands follow from the answers alone, so they fit together and
cost nothing more.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from datetime import datetime, timedelta
from fractions import Fraction
from functools import cache
from typing import TYPE_CHECKING, Protocol

from models.prediction import ACTION_EDGES_DAYS, Confidence, Urgency
from models.wire.bands import PROBABILITY_EDGES, DaysBand, HealthBand, ProbabilityBand
from models.wire.messages import PrimaryIssue

from .summaries import ReportedBands

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

LEAST_EPSILON = Fraction(1, 100)
MOST_EPSILON = Fraction(16)
MAX_DRAWS_A_YEAR = 4
YEAR = timedelta(days=365)
UNIT_OF_PRIVACY = "what one field of the summary says of this device, for each draw; draws add up"
NEIGHBORING_RELATION = "the field's true category replaced by any other"
NOT_COVERED = "that an answer changed, and when, is not hidden"
FACT = "band_noise"
_UNIT = 1 << 16
_SERIES_TERMS = 96
_EVEN_ODDS = 0.5


class FactStore(Protocol):
    """What keeps the draws: a store's named values."""

    def fact(self, name: str) -> object:
        """Return a value, None where there is none."""

    def keep_fact(self, name: str, value: object) -> None:
        """Keep a value durably."""


@dataclass(frozen=True, slots=True)
class Draw:
    """One answer, drawn once.

    Attributes:
        field: what it answers, one of `categories`.
        true: the category it was drawn for.
        said: the answer.
        epsilon: ε of the draw, as a fraction in text.
        at: when, ISO 8601, UTC.
    """

    field: str
    true: str
    said: str
    epsilon: str
    at: str


@dataclass(frozen=True, slots=True)
class NoiseState:
    """What a device remembers of its answers.

    Attributes:
        draws: all of them, the oldest first.
        last: what each field said last.
    """

    draws: tuple[Draw, ...] = ()
    last: Mapping[str, str] | None = None

    def epsilon_spent(self, *, now: datetime | None = None) -> Fraction:
        """Return ε added up over the draws of the year before `now`, or of all."""
        return sum(
            (Fraction(draw.epsilon) for draw in self.draws if now is None or _is_recent(draw, now)),
            Fraction(0),
        )


def categories(threshold: float) -> dict[str, tuple[str, ...]]:
    """Return the categories of each field, in order.

    Risk joins the bands of days with the flag, as far as both can be true of one device: the median
    lies under 30 days exactly where the 30-day probability is one half or more.

    Args:
        threshold: the bundle's: the probability from which a device is flagged.
    """
    return {
        "risk": tuple(
            f"{band.value}.{'flagged' if flagged else 'unflagged'}"
            for band in DaysBand
            for flagged in (True, False)
            if _is_possible(band, threshold=threshold, flagged=flagged)
        ),
        "health": tuple(band.value for band in HealthBand),
        "confidence": tuple(level.value for level in Confidence),
        "issue": tuple(issue.value for issue in PrimaryIssue),
    }


def most_draws_a_year() -> int:
    """Return how many draws are made within 365 days at most, over all fields."""
    return sum(min(len(among), MAX_DRAWS_A_YEAR) for among in categories(_EVEN_ODDS / 2).values())


@cache
def answer_weights(num_categories: int, epsilon: Fraction) -> tuple[int, int]:
    """Return the whole-number weights of the true category and of each other one.

    Raises:
        ValueError: ε is not between 1/100 and 16, or there is nothing to choose.
    """
    if not LEAST_EPSILON <= epsilon <= MOST_EPSILON:
        raise ValueError(f"epsilon must lie in {LEAST_EPSILON} to {MOST_EPSILON}, got {epsilon}")
    if num_categories < 2:
        raise ValueError(f"num_categories must be at least 2, got {num_categories}")
    # Every term is positive, so that leaving the rest out errs on the private side.
    term, total = Fraction(1), Fraction(1)
    for number in range(1, _SERIES_TERMS):
        term *= epsilon / number
        total += term
    return int(total * _UNIT), _UNIT


def draw_answer(
    true: str,
    among: Sequence[str],
    *,
    epsilon: Fraction,
    draw_below: Callable[[int], int],
) -> str:
    """Draw what is said of a category.

    Args:
        true: the category.
        among: all categories of the field.
        epsilon: ε of the draw.
        draw_below: returns a whole number, evenly drawn from 0 to below its argument.
    """
    weight, other_weight = answer_weights(len(among), epsilon)
    others = [category for category in among if category != true]
    drawn = draw_below(weight + len(others) * other_weight)
    return true if drawn < weight else others[(drawn - weight) // other_weight]


def noised(
    true: Mapping[str, str],
    state: NoiseState,
    *,
    among: Mapping[str, tuple[str, ...]],
    epsilon: Fraction,
    now: datetime,
    draw_below: Callable[[int], int],
) -> NoiseState:
    """Return the state whose `last` holds the answers for these categories.

    Args:
        true: the category of every field.
        state: what was drawn and said before.
        among: the categories of every field.
        epsilon: ε of each draw that is still to be made.
        now: the device's time.
        draw_below: as in `draw_answer`.
    """
    draws, last = list(state.draws), dict(state.last or {})
    for field, category in true.items():
        own = [draw for draw in draws if draw.field == field]
        earlier = next((draw for draw in own if draw.true == category), None)
        if earlier is not None:
            last[field] = earlier.said
        elif sum(_is_recent(draw, now) for draw in own) < MAX_DRAWS_A_YEAR:
            said = draw_answer(category, among[field], epsilon=epsilon, draw_below=draw_below)
            draws.append(Draw(field, category, said, str(epsilon), now.isoformat()))
            last[field] = said
    return NoiseState(tuple(draws), last)


def noised_bands(
    store: FactStore,
    bands: ReportedBands,
    *,
    threshold: float,
    epsilon: Fraction,
    now: datetime,
    draw_below: Callable[[int], int] | None = None,
) -> ReportedBands:
    """Return what is told in place of the true bands; new draws are kept before this returns.

    Args:
        store: keeps the draws for life.
        bands: the true ones.
        threshold: the bundle's.
        epsilon: ε of each draw.
        now: the device's time, aware.
        draw_below: as in `draw_answer`; None draws from the operating system's generator.
    """
    from secrets import randbelow

    before = noise_state(store)
    after = noised(
        true_categories(bands, threshold=threshold),
        before,
        among=categories(threshold),
        epsilon=epsilon,
        now=now,
        draw_below=draw_below or randbelow,
    )
    if after != before:
        store.keep_fact(FACT, {"draws": [asdict(draw) for draw in after.draws], "last": after.last})
    return bands_of_answers(after.last or {}, threshold=threshold)


def noise_state(store: FactStore) -> NoiseState:
    """Return what was drawn and said so far."""
    kept = store.fact(FACT)
    if not isinstance(kept, dict):
        return NoiseState()
    return NoiseState(tuple(Draw(**draw) for draw in kept["draws"]), kept["last"])


def true_categories(bands: ReportedBands, *, threshold: float) -> dict[str, str]:
    """Return the category of every field; rounding at an edge is settled by the band of days."""
    risk = _risk(bands.days_band, flagged=bands.flagged, threshold=threshold)
    return {
        "risk": risk,
        "health": bands.health_band.value,
        "confidence": bands.confidence.value,
        "issue": bands.primary_issue.value,
    }


def bands_of_answers(said: Mapping[str, str], *, threshold: float) -> ReportedBands:
    """Return bands that fit together and follow from the answers alone (post-processing).

    The band of probability tells nothing of its own: it is one that the band of days and the flag
    allow. Urgency is A1's, at least high where flagged.
    """
    band, _, flag = said["risk"].partition(".")
    # A model with another threshold may have been installed since the draw.
    risk = _risk(DaysBand(band), flagged=flag == "flagged", threshold=threshold)
    band, _, flag = risk.partition(".")
    days_band, flagged = DaysBand(band), flag == "flagged"
    position = tuple(DaysBand).index(days_band)
    urgency = tuple(Urgency)[min(position, 1) if flagged else position]
    return ReportedBands(
        urgency=urgency,
        flagged=flagged,
        days_band=days_band,
        probability_band=_fitting_probability(days_band, flagged=flagged, threshold=threshold),
        health_band=HealthBand(said["health"]),
        confidence=Confidence(said["confidence"]),
        primary_issue=PrimaryIssue(said["issue"]),
    )


def _risk(band: DaysBand, *, flagged: bool, threshold: float) -> str:
    if not _is_possible(band, threshold=threshold, flagged=flagged):
        flagged = not flagged
    return f"{band.value}.{'flagged' if flagged else 'unflagged'}"


def _is_possible(band: DaysBand, *, threshold: float, flagged: bool) -> bool:
    is_soon = tuple(DaysBand).index(band) < ACTION_EDGES_DAYS.index(30.0) + 1
    if is_soon:
        return flagged or threshold > _EVEN_ODDS
    return not flagged or threshold < _EVEN_ODDS


_PREFERRED = {
    DaysBand.UNDER_7: ProbabilityBand.FROM_80,
    DaysBand.FROM_7_TO_30: ProbabilityBand.FROM_50_TO_80,
    DaysBand.FROM_30_TO_90: ProbabilityBand.FROM_5_TO_20,
    DaysBand.FROM_90: ProbabilityBand.UNDER_1,
}


def _fitting_probability(
    days_band: DaysBand, *, flagged: bool, threshold: float
) -> ProbabilityBand:
    """Return the band nearest to what such days usually go with that holds such a flag."""
    is_soon = days_band in {DaysBand.UNDER_7, DaysBand.FROM_7_TO_30}
    low, high = (_EVEN_ODDS, 1.0) if is_soon else (0.0, _EVEN_ODDS)
    low, high = (max(low, threshold), high) if flagged else (low, min(high, threshold))
    edges = (0.0, *PROBABILITY_EDGES, 1.0)
    bands = tuple(ProbabilityBand)
    fitting = [
        band
        for band, start, end in zip(bands, edges[:-1], edges[1:], strict=True)
        if max(start, low) < min(end, high) or start <= low == high < end
    ]
    wanted = bands.index(_PREFERRED[days_band])
    return min(fitting or [_PREFERRED[days_band]], key=lambda b: abs(bands.index(b) - wanted))


def _is_recent(draw: Draw, now: datetime) -> bool:
    # A clock that was set back must not hand out the year's draws anew.
    return abs(now - datetime.fromisoformat(draw.at)) < YEAR
