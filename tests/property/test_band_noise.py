"""Noise on bands: the ε bound by enumeration, consistency of every answer, draws that stay."""

import json
from collections import Counter
from datetime import UTC, datetime, timedelta
from fractions import Fraction
from itertools import pairwise
from math import exp

import mpmath
import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from edge_client.band_noise import (
    MAX_DRAWS_A_YEAR,
    NoiseState,
    answer_weights,
    bands_of_answers,
    categories,
    draw_answer,
    noised,
    noised_bands,
    true_categories,
)
from edge_client.summaries import ReportedBands
from models.prediction import Confidence, Urgency, urgency_band
from models.wire.bands import DaysBand, HealthBand, ProbabilityBand, days_band, probability_band
from models.wire.messages import PrimaryIssue
from tests.support.examples import examples

NOW = datetime(2026, 6, 1, tzinfo=UTC)
TWO = Fraction(2)
EPSILONS = st.fractions(Fraction(1, 100), 16, max_denominator=1000)
THRESHOLDS = st.floats(0, 1)


def all_answers(true, among, epsilon):
    """Count every outcome of the draw: exact probabilities, as nothing else decides."""
    weight, other = answer_weights(len(among), epsilon)
    total = weight + (len(among) - 1) * other
    # The draw is constant between these edges.
    edges = [0, weight, *(weight + n * other for n in range(1, len(among)))]
    shares = {category: Fraction(0) for category in among}
    for low, high in pairwise(edges):
        said = {
            draw_answer(true, among, epsilon=epsilon, draw_below=lambda n, v=value: v)
            for value in (low, (low + high) // 2, high - 1)
        }
        assert len(said) == 1
        shares[said.pop()] += Fraction(high - low, total)
    return shares


@given(epsilon=EPSILONS, threshold=THRESHOLDS)
@example(epsilon=Fraction(1, 100), threshold=0.0)
@example(epsilon=Fraction(16), threshold=1.0)
@settings(max_examples=examples(20), deadline=None)
def test_no_two_categories_differ_by_more_than_epsilon_in_any_answer(epsilon, threshold):
    with mpmath.workdps(50):
        bound = Fraction(str(mpmath.exp(mpmath.mpf(epsilon.numerator) / epsilon.denominator)))
    bound += Fraction(1, 10**30)
    for among in categories(threshold).values():
        told = {true: all_answers(true, among, epsilon) for true in among}
        for one in among:
            assert sum(told[one].values()) == 1
            for other in among:
                for said in among:
                    assert told[one][said] <= bound * told[other][said]
            assert told[one][one] >= max(told[one].values())


@given(epsilon=EPSILONS)
def test_the_odds_use_epsilon_up(epsilon):
    weight, other = answer_weights(4, epsilon)
    assert weight / other <= exp(float(epsilon)) * (1 + 1e-12)
    assert (weight + 1) / other >= exp(float(epsilon)) * (1 - 1e-9)


@pytest.mark.parametrize("epsilon", [Fraction(0), Fraction(-1), Fraction(17)])
def test_an_epsilon_that_protects_nothing_or_cannot_be_is_refused(epsilon):
    with pytest.raises(ValueError, match="epsilon must lie in"):
        answer_weights(4, epsilon)


def test_answers_of_the_operating_system_have_the_stated_frequencies():
    """Pearson's χ² with 5 degrees of freedom; 30.9 is passed with probability 1e-5."""
    from secrets import randbelow

    among = categories(0.3)["risk"]
    true, count = among[2], 20_000
    seen = Counter(
        draw_answer(true, among, epsilon=TWO, draw_below=randbelow) for _ in range(count)
    )
    expected = {said: float(share) * count for said, share in all_answers(true, among, TWO).items()}
    chi2 = sum((seen[said] - expected[said]) ** 2 / expected[said] for said in among)
    assert set(seen) <= set(among)
    assert chi2 < 30.9


def true_bands(days, probability, threshold, health=HealthBand.FROM_90):
    flagged = probability >= threshold
    return ReportedBands(
        urgency=tuple(Urgency)[int(urgency_band(np.array([days]), np.array([flagged]))[0])],
        flagged=flagged,
        days_band=days_band(days),
        probability_band=probability_band(probability),
        health_band=health,
        confidence=Confidence.HIGH,
        primary_issue=PrimaryIssue.CAPACITY_FADE,
    )


@given(threshold=THRESHOLDS, data=st.data())
@settings(deadline=None)
def test_every_answer_is_a_summary_that_a_device_could_have_sent(threshold, data):
    among = categories(threshold)
    said = {field: data.draw(st.sampled_from(options)) for field, options in among.items()}
    bands = bands_of_answers(said, threshold=threshold)

    is_soon = bands.days_band in {DaysBand.UNDER_7, DaysBand.FROM_7_TO_30}
    position = tuple(DaysBand).index(bands.days_band)
    assert bands.urgency == tuple(Urgency)[min(position, 1) if bands.flagged else position]
    low, high = _edges(bands.probability_band)
    # Some probability of the band is at least .5 exactly where the median is under 30 days, ...
    assert high > 0.5 if is_soon else low < 0.5
    # ... and some probability of it is flagged, or not, as the flag says.
    if 0.001 < threshold < 0.999 and abs(threshold - 0.5) > 1e-9:
        assert high > threshold if bands.flagged else low < threshold


def _edges(band):
    edges = (0.0, 0.01, 0.05, 0.2, 0.5, 0.8, 1.0)
    index = tuple(ProbabilityBand).index(band)
    return edges[index], edges[index + 1]


@given(days=st.floats(0.5, 3650), probability=st.floats(0, 1), threshold=st.floats(0.01, 0.99))
def test_what_is_true_has_a_category(days, probability, threshold):
    found = true_categories(true_bands(days, probability, threshold), threshold=threshold)
    among = categories(threshold)
    assert all(found[field] in among[field] for field in among)


def test_both_kinds_of_threshold_leave_six_risks():
    assert categories(0.3)["risk"] == (
        "under_7.flagged",
        "7_to_30.flagged",
        "30_to_90.flagged",
        "30_to_90.unflagged",
        "90_or_more.flagged",
        "90_or_more.unflagged",
    )
    assert len(categories(0.7)["risk"]) == 6


class Facts:
    """Named values, written as JSON like a store's."""

    def __init__(self):
        self.kept = {}

    def fact(self, name):
        return json.loads(self.kept[name]) if name in self.kept else None

    def keep_fact(self, name, value):
        self.kept[name] = json.dumps(value)


def say(facts, bands, *, now=NOW, epsilon=TWO, draws=None):
    return noised_bands(facts, bands, threshold=0.3, epsilon=epsilon, now=now, draw_below=draws)


def test_an_answer_is_drawn_once_and_told_until_the_band_changes():
    facts, healthy = Facts(), true_bands(500, 0.01, 0.3)
    first = say(facts, healthy)
    kept = dict(facts.kept)
    again = [say(facts, healthy, now=NOW + timedelta(days=day)) for day in range(200)]
    assert set(again) == {first}
    assert facts.kept == kept


def test_a_band_that_returns_is_told_as_before():
    facts = Facts()
    healthy, tired = true_bands(500, 0.01, 0.3), true_bands(60, 0.1, 0.3)
    said = [say(facts, bands) for bands in (healthy, tired, healthy, tired)]
    assert said[0] == said[2]
    assert said[1] == said[3]


def never(_):
    raise AssertionError("nothing should have been drawn")


def test_with_a_year_s_draws_made_the_last_answer_stays():
    among = {"risk": tuple("abcdef")}
    state = NoiseState()
    for number, category in enumerate("abcdef"):
        state = noised(
            {"risk": category},
            state,
            among=among,
            epsilon=TWO,
            now=NOW + timedelta(days=number),
            draw_below=never if number >= MAX_DRAWS_A_YEAR else lambda _: 0,
        )
    assert [draw.said for draw in state.draws] == list("abcd")
    assert state.last == {"risk": "d"}
    assert state.epsilon_spent() == 8
    later = NOW + timedelta(days=365, hours=12)
    assert state.epsilon_spent(now=later) == 6
    state = noised(
        {"risk": "f"}, state, among=among, epsilon=TWO, now=later, draw_below=lambda _: 0
    )
    assert state.last == {"risk": "f"}


def test_a_clock_set_back_hands_out_no_draws():
    among = {"risk": tuple("abcdef")}
    state = NoiseState()
    for number, category in enumerate("abcd"):
        at = NOW + timedelta(days=number)
        state = noised(
            {"risk": category}, state, among=among, epsilon=TWO, now=at, draw_below=lambda _: 0
        )
    back = NOW - timedelta(days=300)
    after = noised({"risk": "e"}, state, among=among, epsilon=TWO, now=back, draw_below=never)
    assert after.draws == state.draws


def test_another_epsilon_holds_for_what_was_not_drawn_yet():
    facts = Facts()
    healthy = true_bands(500, 0.01, 0.3)
    first = say(facts, healthy, epsilon=Fraction(1, 2))
    assert say(facts, healthy, epsilon=Fraction(8), draws=never) == first


def test_another_threshold_keeps_the_answers_and_their_fit():
    facts, gone = Facts(), true_bands(3, 0.9, 0.3)
    say(facts, gone, draws=lambda _: 0)
    told = noised_bands(facts, gone, threshold=0.95, epsilon=TWO, now=NOW, draw_below=lambda _: 0)
    assert told.days_band is DaysBand.UNDER_7
    assert told.urgency is Urgency.CRITICAL
