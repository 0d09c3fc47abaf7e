"""The study of hostile fleets in small: the real loop over Flower's messages, faults and all."""

import json

import pytest

from models.wire.rounds import LocalRecipe
from server.engine.aggregation import ReplyRefusal
from simulations.fault_study import (
    CLEAN,
    PARTS,
    Arm,
    HeldOutLooks,
    arms_of,
    expected_replies,
    run_arm,
    run_study,
)
from simulations.fleet_faults import Fault, FaultPlan
from simulations.quality_study import QualityPlan
from tests.support.small_fleet import SmallFleet

FLEET = SmallFleet(24, 60)
PLAN = QualityPlan(
    num_rounds=3,
    cohort_size=8,
    look_every=2,
    local=LocalRecipe(least_rows=20, expected_batch_size=20, sampling_rate=0.3),
)
WANTED = {
    Fault.NAN: ReplyRefusal.NOT_FINITE,
    Fault.INFINITE: ReplyRefusal.NOT_FINITE,
    Fault.WRONG_SHAPE: ReplyRefusal.WRONG_SHAPE,
    Fault.WRONG_TYPE: ReplyRefusal.WRONG_TYPE,
    Fault.WRONG_STEP: ReplyRefusal.WRONG_STEP,
    Fault.REPLAY: ReplyRefusal.WRONG_STEP,
    Fault.SCALED: ReplyRefusal.BEYOND_BOUND,
    Fault.DUPLICATE: ReplyRefusal.DUPLICATE,
}


@pytest.fixture(scope="module")
def looks():
    return HeldOutLooks(FLEET)


def arm_with(*, devices_a_node=1, **faults):
    return Arm(name="an arm", faults=FaultPlan(**faults), devices_a_node=devices_a_node)


def test_every_fault_of_a_reply_is_refused_by_its_reason_and_the_run_goes_on(looks):
    faults = {"hostile_replies": 0.5, "reply_faults": tuple(WANTED)}
    result = run_arm(FLEET, looks, PLAN, arm_with(**faults), seed=1)
    assert result.complete == result.rounds == PLAN.num_rounds
    assert set(result.refused) <= {reason.value for reason in WANTED.values()}
    assert len(result.refused) >= 4
    assert result.looks[3]["average_precision"] is not None


def test_rounds_are_counted_against_a_least_that_they_can_miss(looks):
    plan = FaultPlan(dropout=0.2, late=0.1, hostile_replies=0.05)
    assert expected_replies(plan, cohort_size=500) == pytest.approx(332.5)
    result = run_arm(FLEET, looks, PLAN, arm_with(hostile_replies=0.5), seed=1)
    assert result.near_least == 3
    assert result.reached_near_least is not None
    assert 0 <= result.reached_near_least <= result.rounds


def test_what_comes_late_counts_as_nothing_and_is_named(looks, monkeypatch):
    monkeypatch.setattr("simulations.fault_study.DEADLINE_S", 0.5)
    result = run_arm(FLEET, looks, PLAN, arm_with(late=0.5), seed=1)
    assert set(result.refused) == {"late"}
    assert result.replied < PLAN.cohort_size
    assert 0 < result.refused["late"] < PLAN.cohort_size * PLAN.num_rounds


def test_rounds_that_nobody_answers_are_marked_and_charged_all_the_same(looks):
    faults = {"dropout": 0.94, "noticed": 1.0}
    result = run_arm(FLEET, looks, PLAN, arm_with(**faults), seed=3)
    clean = run_arm(FLEET, looks, PLAN, arm_with(), seed=3)
    assert result.rounds == PLAN.num_rounds
    assert result.noise_only == PLAN.num_rounds - result.complete > 0
    assert result.epsilon_release == clean.epsilon_release > 0


def test_an_arm_repeats_and_does_not_depend_on_how_devices_are_spread_over_nodes(looks):
    faults = {"poisoned": 0.3, "dropout": 0.2, "noticed": 1.0}
    alone = run_arm(FLEET, looks, PLAN, arm_with(**faults), seed=1)
    blocks = run_arm(FLEET, looks, PLAN, arm_with(devices_a_node=10, **faults), seed=1)
    assert alone.looks == blocks.looks
    assert alone.triggered == blocks.triggered
    assert alone.replied == blocks.replied


def test_a_study_goes_on_where_it_was_stopped_and_compares_with_the_clean_run(tmp_path):
    arms = arms_of("poisons")[:2]
    begun = []
    summary = run_study(
        FLEET,
        PLAN,
        arms=arms,
        seeds=(1, 2),
        folder=tmp_path,
        on_round=lambda: begun.append(1),
    )
    assert len(begun) == 4 * PLAN.num_rounds
    again = run_study(
        FLEET,
        PLAN,
        arms=arms,
        seeds=(1, 2),
        folder=tmp_path,
        on_round=lambda: begun.append(1),
    )
    assert len(begun) == 4 * PLAN.num_rounds
    assert again == summary
    assert json.loads(json.dumps(summary))["arms"][0]["arm"] == CLEAN
    clean, poisoned = summary["arms"]
    assert clean["lost"] == 0
    assert poisoned["lost_by_seed"] == [
        clean["seeds"][n]["looks"][3]["average_precision"]
        - poisoned["seeds"][n]["looks"][3]["average_precision"]
        for n in range(2)
    ]
    assert 0 <= poisoned["triggered"]["false_alarm"] <= 1


def test_every_part_of_the_study_has_the_clean_run_first():
    for kind in PARTS:
        names = [arm.name for arm in arms_of(kind)]
        assert names[0] == CLEAN
        assert len({*names}) == len(names) > 1
    with pytest.raises(ValueError, match="is none of"):
        arms_of("other")
