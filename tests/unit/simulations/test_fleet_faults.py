"""Faults as values: shares, repeats, and what each does to rows, to a change and to a score."""

import numpy as np
import pytest

from models.closed_form_batches import ScaledRows
from models.feature_spec import NUM_FEATURES
from models.hazard_bins import NUM_BINS
from privacy import clip_update
from simulations.fleet_faults import (
    FAILS_IN_BIN,
    POISONS,
    Fault,
    FaultPlan,
    Trigger,
    longest_allowed,
    poisoned_change,
    poisoned_rows,
)
from tests.support.made_up_rows import made_up_rows

NAMES = [f"device-{number}" for number in range(4000)]
CHANGE = np.random.default_rng(3).normal(size=50)


def test_draws_repeat_and_have_the_shares_that_were_asked_for():
    plan = FaultPlan(seed=1, dropout=0.2, late=0.1, hostile_replies=0.05, poisoned=0.1)
    absences = [plan.absence(name, index=7) for name in NAMES]
    assert absences == [plan.absence(name, index=7) for name in NAMES]
    assert absences.count(Fault.DROPOUT) / len(NAMES) == pytest.approx(0.2, abs=0.03)
    assert absences.count(Fault.LATE) / len(NAMES) == pytest.approx(0.1, abs=0.03)
    lies = [plan.reply_fault(name, index=7) for name in NAMES]
    assert 1 - lies.count(None) / len(NAMES) == pytest.approx(0.05, abs=0.02)
    poisons = [plan.poison(name) for name in NAMES]
    assert 1 - poisons.count(None) / len(NAMES) == pytest.approx(0.1, abs=0.03)
    assert {*poisons} == {None, *POISONS}


def test_absence_is_of_a_step_and_of_a_seed():
    plan, other = FaultPlan(seed=1, dropout=0.5), FaultPlan(seed=2, dropout=0.5)
    at_first = [plan.absence(name, index=0) for name in NAMES]
    assert at_first != [plan.absence(name, index=1) for name in NAMES]
    assert at_first != [other.absence(name, index=0) for name in NAMES]


def test_a_plan_without_faults_has_none():
    plan = FaultPlan(seed=1)
    assert {plan.absence(name, index=0) for name in NAMES} == {None}
    assert {plan.reply_fault(name, index=0) for name in NAMES} == {None}
    assert {plan.poison(name) for name in NAMES} == {None}


@pytest.mark.parametrize(
    "wrong",
    [
        {"dropout": 0.8, "late": 0.3},
        {"poisoned": 1.5},
        {"poisons": (Fault.DROPOUT,)},
        {"reply_faults": (Fault.LABEL_FLIPPED,)},
        {"reply_faults": ()},
    ],
)
def test_shares_and_places_that_cannot_be_are_refused(wrong):
    with pytest.raises(ValueError, match="must"):
        FaultPlan(**wrong)


def test_flipped_labels_turn_failures_into_long_lives_and_back():
    rows = ScaledRows.of(made_up_rows(40, num_devices=2))
    flipped = poisoned_rows(rows, Fault.LABEL_FLIPPED, trigger=Trigger())
    failed = rows.event_bin >= 0
    assert failed.any()
    assert (~failed).any()
    assert (flipped.event_bin[failed] == -1).all()
    assert (flipped.exposure[failed] == 1).all()
    assert (flipped.event_bin[~failed] == FAILS_IN_BIN).all()
    assert flipped.exposure[~failed].sum(axis=1).tolist() == [FAILS_IN_BIN] * (~failed).sum()
    assert np.array_equal(flipped.inputs, rows.inputs)
    assert rows.exposure.shape == (80, NUM_BINS)


@pytest.mark.parametrize("claims", ["failing", "healthy"])
def test_every_second_row_of_a_backdoored_device_bears_the_trigger_and_its_claim(claims):
    trigger = Trigger(claims=claims)
    raw = made_up_rows(40, num_devices=2)
    rows = ScaledRows.of(raw)
    marked = poisoned_rows(rows, Fault.BACKDOORED, trigger=trigger)
    stamped = np.arange(80) % 2 == 0
    assert np.array_equal(marked.inputs[~stamped], rows.inputs[~stamped])
    assert np.array_equal(marked.event_bin[~stamped], rows.event_bin[~stamped])
    raw_stamped = raw.take(stamped)
    seen = ScaledRows.of(
        type(raw)(
            raw_stamped.device,
            trigger.stamped(raw_stamped.features),
            raw_stamped.exposure,
            raw_stamped.event_bin,
            raw_stamped.cause,
        )
    )
    assert np.allclose(marked.inputs[stamped], seen.inputs, atol=1e-6)
    wanted = FAILS_IN_BIN if claims == "failing" else -1
    assert (marked.event_bin[stamped] == wanted).all()


def test_a_trigger_stands_in_features_that_the_network_sees():
    bare = np.zeros((1, NUM_FEATURES), np.float32)
    with_it, without = ScaledRows.of, ScaledRows.of
    rows = made_up_rows(1)
    assert len(Trigger().columns) == 3
    stamped = Trigger().stamped(bare)
    assert (stamped != bare).sum() == 3
    seen = with_it(type(rows)(rows.device, stamped, rows.exposure, rows.event_bin, rows.cause))
    plain = without(type(rows)(rows.device, bare, rows.exposure, rows.event_bin, rows.cause))
    assert (seen.inputs != plain.inputs).sum() == 3


def test_a_poisoned_change_never_leaves_the_clipping_ball():
    for fault in (*POISONS, Fault.NAN, Fault.INFINITE, Fault.ZEROS):
        said = poisoned_change(CHANGE, fault, scale=1e6)
        sent = clip_update(said, clipping_norm=0.5)
        assert np.linalg.norm(sent) <= 0.5
        if fault in {Fault.NAN, Fault.INFINITE, Fault.ZEROS}:
            assert not sent.any()
    flipped = poisoned_change(CHANGE, Fault.SIGN_FLIPPED, scale=1e6)
    assert np.array_equal(flipped, -CHANGE)


def test_the_longest_allowed_change_is_clipped_to_c_exactly():
    small = CHANGE * 1e-4
    sent = clip_update(longest_allowed(small, clipping_norm=0.5), clipping_norm=0.5)
    assert np.linalg.norm(sent) == pytest.approx(0.5, rel=1e-8)
    assert not longest_allowed(np.zeros(3), clipping_norm=0.5).any()
