"""Devices that a model silences: who counts as missing, what holds a ring and what halts it."""

from datetime import UTC, datetime, timedelta

import numpy as np
import pytest

from server.releases.distribution import Moves, Question
from server.releases.rings import (
    Evidence,
    ReleaseState,
    RingPolicy,
    Rollout,
    decide,
    why_waiting,
)
from server.releases.silence import Presence, presence_of, silenced

NOW = datetime(2027, 1, 1, tzinfo=UTC)
DAY = timedelta(days=1)
ROLLING = Rollout(number=3, state=ReleaseState.ROLLING, ring=0, ring_began_at=NOW)
POLICY = RingPolicy()


def said(heard, missing, *, elsewhere=(100, 10)):
    """Return evidence in which all that are heard run the model."""
    return Evidence(
        known=heard + missing,
        active=heard,
        running=heard,
        compared=heard,
        shifts={question: (Moves(heard, 0, 0), Moves(200, 0, 0)) for question in Question},
        presence=Presence(heard, missing),
        elsewhere=Presence(*elsewhere),
    )


def after(evidence, *, now=NOW + DAY):
    return decide(ROLLING, evidence, POLICY, rings=3, now=now)


@pytest.mark.parametrize(
    ("heard", "missing", "state", "ring"),
    [
        (50, 0, "rolling", 1),
        (40, 10, "rolling", 1),
        (39, 11, "rolling", 0),
        (25, 25, "rolling", 0),
        (8, 42, "halted", 0),
    ],
)
def test_a_ring_holds_while_devices_are_missing_and_halts_where_most_are(
    heard, missing, state, ring
):
    found = after(said(heard, missing))

    assert (found.state, found.ring) == (state, ring)
    assert ("42 of 50 devices" in found.reason) is (state == "halted")
    waits = why_waiting(ROLLING, said(heard, missing), POLICY, now=NOW + DAY)
    assert [f"{40 - heard} of {missing} that spoke before, and not since"] == waits or heard >= 40
    assert (waits == []) is (heard >= 40)


def test_silence_is_judged_after_as_long_a_time_as_before():
    assert after(said(8, 42), now=NOW + DAY / 2).state is ReleaseState.ROLLING


@pytest.mark.parametrize("elsewhere", [(20, 80), (0, 0), (7, 0)])
def test_what_silences_the_others_too_or_nobody_can_tell_holds_and_does_not_halt(elsewhere):
    """A weekend, a network that is down, the last ring."""
    found = after(said(8, 42, elsewhere=elsewhere))

    assert (found.state, found.ring) == (ReleaseState.ROLLING, 0)


def test_who_has_been_away_for_long_says_nothing():
    seen = [NOW + DAY / 2, NOW, NOW - DAY / 2, NOW - DAY, NOW - 2 * DAY, NOW - 400 * DAY]

    assert presence_of(seen, since=NOW, before=DAY) == Presence(heard=2, missing=2)


@pytest.mark.slow
@pytest.mark.parametrize("per_day", [0.3, 1.0, 3.0])
def test_devices_that_speak_as_before_halt_nothing_however_seldom_they_speak(per_day):
    random, alarms = np.random.default_rng(5), 0
    for _ in range(300):
        rings = []
        for count in (50, 200):
            before, later = random.poisson(per_day, (2, count))
            rings.append(Presence(int((later > 0).sum()), int(((before > 0) & (later == 0)).sum())))
        alarms += bool(silenced(*rings, alpha=0.01))

    # Four standard deviations above alpha = 1 %.
    assert alarms <= 3 + 4 * np.sqrt(3)
