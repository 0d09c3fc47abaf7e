"""What becomes of a release: rings, looks, halts, and what is offered to whom."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import numpy as np
import pytest

from models.wire.bands import DaysBand
from server.releases.distribution import Bands, Moves, Question, least_share, moves, net_shift
from server.releases.offers import Offerable, offers_of, target_names
from server.releases.rings import (
    Evidence,
    ReleaseState,
    Ring,
    RingPolicy,
    Rollout,
    TransitionError,
    decide,
    halted,
    resumed,
    ring_of,
    started,
    withdrawn,
)

NOW = datetime(2027, 1, 1, tzinfo=UTC)
DAY = timedelta(days=1)
ROLLING = Rollout(number=3, state=ReleaseState.ROLLING, ring=0, ring_began_at=NOW)
POLICY = RingPolicy()


def unmoved(count=50):
    return {question: (Moves(count, 0, 0), Moves(500, 5, 5)) for question in Question}


def heard(**changes):
    values = {"known": 50, "active": 50, "running": 50, "compared": 50, "shifts": unmoved()}
    return Evidence(**(values | changes))


def after(evidence, *, rollout=ROLLING, policy=POLICY, now=NOW + DAY):
    return decide(rollout, evidence, policy, rings=3, now=now)


def test_a_ring_advances_once_it_has_soaked_and_acknowledged():
    assert after(heard()).ring == 1
    assert after(heard(), now=NOW + DAY / 2).ring == 0
    assert after(heard(running=39)).ring == 0
    assert after(heard(running=40)).ring == 1
    assert after(heard(compared=7, shifts=unmoved(7))).ring == 0
    assert after(Evidence()).ring == 0
    assert after(heard(active=7, running=7, compared=8, shifts=unmoved(8))).ring == 0
    assert after(heard(active=8, running=8, compared=8, shifts=unmoved(8))).ring == 1


def test_devices_that_cannot_run_it_are_not_waited_for():
    assert after(heard(running=10, unsuited=40)).ring == 1


def test_after_the_last_ring_it_is_released():
    last = replace(ROLLING, ring=2)

    assert after(heard(), rollout=last).state is ReleaseState.RELEASED


@pytest.mark.parametrize(
    ("failed", "state"),
    [(1, "rolling"), (2, "rolling"), (5, "halted"), (7, "halted"), (8, "withdrawn")],
)
def test_a_model_that_fails_on_more_than_is_tolerated_stops_at_once(failed, state):
    found = after(
        heard(running=50 - failed, failed={"no_report": failed}), now=NOW + timedelta(minutes=1)
    )

    assert found.state == state
    assert ("no_report" in found.reason) is (state != "rolling")


@pytest.mark.parametrize("running", [0, 1, 6, 42])
def test_two_devices_alone_never_end_a_release_for_good(running):
    told = heard(active=running + 2, running=running, failed={"structure": 2}, shifts={})
    stopped = after(told, now=NOW)

    assert stopped.state in {ReleaseState.HALTED, ReleaseState.ROLLING}
    assert (running, stopped.state) != (0, ReleaseState.ROLLING)
    if stopped.state is ReleaseState.HALTED:
        assert resumed(stopped, now=NOW).state is ReleaseState.ROLLING


@pytest.mark.parametrize(("failed", "state"), [(7, "halted"), (8, "withdrawn")])
def test_a_halted_release_is_withdrawn_once_it_fails_on_enough_devices(failed, state):
    stopped = after(heard(running=3, failed={"no_report": 5}), now=NOW)
    later = after(heard(running=3, failed={"no_report": failed}), rollout=stopped)

    assert stopped.state is ReleaseState.HALTED
    assert later.state == state
    assert ("failed on 8" in later.reason) is (state == "withdrawn")


@pytest.mark.parametrize(
    ("ring", "state"),
    [
        (Moves(50, 0, 0), "rolling"),
        (Moves(50, 3, 1), "rolling"),
        (Moves(50, 25, 0), "withdrawn"),
        (Moves(50, 0, 25), "withdrawn"),
        (Moves(50, 12, 12), "rolling"),
        (Moves(8, 7, 0), "halted"),
        (Moves(8, 0, 7), "halted"),
        (Moves(8, 8, 0), "withdrawn"),
    ],
)
def test_a_shift_beyond_doubt_stops_in_either_direction(ring, state):
    shifts = unmoved() | {Question.UNDER_30_DAYS: (ring, Moves(500, 5, 5))}

    found = after(heard(shifts=shifts), now=NOW + timedelta(minutes=1))

    assert found.state == state
    assert ("under_30_days" in found.reason) is (state != "rolling")


def test_what_the_others_move_too_is_no_shift():
    shifts = unmoved() | {Question.UNDER_30_DAYS: (Moves(50, 20, 0), Moves(500, 200, 0))}

    assert after(heard(shifts=shifts)).state is ReleaseState.ROLLING


def test_looks_are_made_when_the_number_has_doubled():
    early = {"active": 50, "running": 10, "compared": 8, "shifts": unmoved(8)}
    first = after(heard(**early), now=NOW)
    second = after(heard(**early | {"compared": 15}), rollout=first, now=NOW)
    third = after(heard(**early | {"compared": 16}), rollout=second, now=NOW)

    assert [(one.looks, one.looked_at) for one in (first, second, third)] == [
        (1, 8),
        (1, 8),
        (2, 16),
    ]


@pytest.mark.slow
def test_false_alarms_stay_below_alpha():
    """1,000 honest releases to a canary of 50: a tenth of the devices move, either way alike."""
    random = np.random.default_rng(7)
    alarms = 0
    for _ in range(1_000):
        rollout, paths = ROLLING, random.choice([1, -1, 0], size=(4, 50), p=[0.05, 0.05, 0.9])
        others = random.choice([1, -1, 0], size=(4, 500), p=[0.05, 0.05, 0.9])
        for compared in (8, 16, 32, 50):
            shifts = {
                question: (
                    Moves(
                        compared, int((ring[:compared] > 0).sum()), int((ring[:compared] < 0).sum())
                    ),
                    Moves(500, int((rest > 0).sum()), int((rest < 0).sum())),
                )
                for question, ring, rest in zip(Question, paths, others, strict=True)
            }
            said = heard(running=compared, compared=compared, shifts=shifts)
            rollout = after(said, rollout=rollout, now=NOW)
        alarms += rollout.state is not ReleaseState.ROLLING

    # Four standard deviations above alpha = 1 %.
    assert alarms <= 10 + 4 * np.sqrt(10)


def test_the_interval_holds_the_truth_as_often_as_it_says():
    random, covered = np.random.default_rng(3), 0
    for _ in range(2_000):
        up, down, _ = random.multinomial(50, [0.2, 0.1, 0.7])
        more, fewer, _ = random.multinomial(300, [0.05, 0.03, 0.92])
        found = net_shift(Moves(50, up, down), Moves(300, more, fewer), alpha=0.05)
        covered += found.low <= 0.1 - 0.02 <= found.high

    assert covered / 2_000 > 0.94


def test_the_exact_bound_of_a_share():
    # Clopper and Pearson 1934: with all of n the one-sided bound is alpha^(1/n).
    assert least_share(10, 10, alpha=0.05) == pytest.approx(0.05**0.1, rel=1e-6)
    assert least_share(0, 10, alpha=0.05) == 0.0
    assert least_share(1, 50, alpha=0.01) == pytest.approx(1 - 0.99 ** (1 / 50), rel=1e-4)


def test_moves_are_counted_device_by_device():
    calm, soon = Bands(False, DaysBand.FROM_90), Bands(True, DaysBand.UNDER_7)
    pairs = [(calm, soon), (soon, calm), (calm, calm), (calm, soon)]

    assert moves(pairs, Question.FLAGGED) == Moves(4, 2, 1)
    assert moves(pairs, Question.UNDER_90_DAYS) == Moves(4, 2, 1)
    assert Bands.from_json(soon.to_json()) == soon


def test_only_what_can_follow_follows():
    signed = Rollout(number=1, state=ReleaseState.SIGNED)
    going = started(signed, now=NOW)

    assert (going.state, going.ring) == (ReleaseState.ROLLING, 0)
    assert resumed(halted(going, reason="x"), now=NOW).state is ReleaseState.ROLLING
    assert withdrawn(halted(going, reason="x"), reason="y").reason == "y"
    for refuse in (
        lambda: started(going, now=NOW),
        lambda: halted(signed, reason=""),
        lambda: resumed(going, now=NOW),
        lambda: withdrawn(withdrawn(going, reason=""), reason=""),
    ):
        with pytest.raises(TransitionError):
            refuse()


def test_a_halted_release_does_not_go_on_by_itself():
    stopped = halted(ROLLING, reason="an operator")
    moved = dict.fromkeys(Question, (Moves(50, 50, 0), Moves(500, 5, 5)))

    assert after(heard(), rollout=stopped) == stopped
    assert after(heard(failed={"golden": 7}), rollout=stopped) == stopped
    assert after(heard(shifts=moved), rollout=stopped) == stopped


def test_rings_are_stable_shares_and_lists_win():
    rings = (Ring("canary", 0.05), Ring("groups", 0.2, frozenset({"vip"})), Ring("fleet", 1.0))
    found = [ring_of(f"device-{number}", rings) for number in range(4_000)]

    assert ring_of("vip", rings) == "groups"
    assert found.count("canary") / 4_000 == pytest.approx(0.05, abs=0.014)
    assert found.count("groups") / 4_000 == pytest.approx(0.2, abs=0.026)
    assert found == [ring_of(f"device-{number}", rings) for number in range(4_000)]


# --- offers -------------------------------------------------------------------------------------


def release(number, state, ring=None, *, spec="1", least="0.1.0", back_spec="1"):
    return Offerable(
        number=number,
        state=ReleaseState(state),
        ring=ring,
        version=f"v{number}",
        feature_spec_version=spec,
        least_client_version=least,
        back_version=f"v{number - 2}",
        back_feature_spec_version=back_spec,
        back_least_client_version="0.1.0",
    )


def offered(ring, *releases):
    return [(offer.number, offer.version) for offer in offers_of(ring, releases)]


def test_a_rolling_release_is_offered_to_the_rings_it_has_reached():
    released, rolling = release(1, "released", 2), release(3, "rolling", 0)

    assert offered(0, released, rolling) == [(3, "v3")]
    assert offered(1, released, rolling) == [(1, "v1")]


def test_a_halted_one_is_offered_to_nobody_and_nothing_older_in_its_place():
    released, stopped = release(1, "released", 2), release(3, "halted", 0)

    assert offered(0, released, stopped) == []
    assert offered(1, released, stopped) == [(1, "v1")]


def test_a_withdrawn_one_gives_every_ring_its_way_back():
    released, gone = release(1, "released", 2), release(3, "withdrawn", 0)

    assert offered(0, released, gone) == offered(2, released, gone) == [(4, "v1")]
    assert offered(0, released, release(3, "withdrawn")) == [(1, "v1")]


def test_the_last_bundle_of_each_specification_and_client_is_kept():
    first = release(1, "released", 2)
    newer_client = release(3, "released", 2, least="0.2.0")
    newer_spec = release(5, "released", 2, spec="2", least="0.3.0")
    found = offers_of(0, [first, newer_client, newer_spec])

    assert [offer.number for offer in found] == [5, 3, 1]
    names = target_names("canary", found)
    assert {name: (offer.number, earlier) for name, (offer, earlier) in names.items()} == {
        "canary/2.zip": (5, ()),
        "canary/1.zip": (3, ("0.1.0",)),
        "canary/1+0.1.0.zip": (1, ()),
    }
