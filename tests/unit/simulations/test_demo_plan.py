"""What decides a run of the demo, and what is decided from it."""

import pytest

from server.engine.reference_fleet import ReferenceHalves
from simulations.demo.plan import DemoPlan
from simulations.demo.private_rounds import (
    PRIVATE,
    WITHOUT_NOISE,
    configurations,
    learning_curve,
)


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"devices": 3}, "devices must be at least 20, got 3"),
        ({"rounds": 0}, "rounds must be at least 1, got 0"),
        ({"days": 100}, "days must be at least 240, got 100"),
        ({"epsilon": 0.0}, "epsilon must be above 0, got 0.0"),
        ({"epsilon": float("nan")}, "epsilon must be above 0, got nan"),
        ({"delta": 0.5}, "delta must lie in 0 to 1e-05"),
        ({"seed": -1}, "seed must lie in 0 to"),
    ],
)
def test_plan_with_which_there_is_nothing_to_show_is_refused(changes, named):
    with pytest.raises(ValueError, match=named):
        DemoPlan(**changes)


def test_both_runs_differ_in_noise_alone():
    plan = DemoPlan(devices=50, rounds=3, epsilon=1.5, delta=1e-7)
    both = configurations(plan)
    private, clear = both[PRIVATE], both[WITHOUT_NOISE]

    assert (private.epsilon, private.delta) == (1.5, 1e-7)
    assert private.recipe.is_record_private
    assert clear.epsilon is None
    assert not clear.recipe.is_record_private
    assert private.stream != clear.stream
    for name in ("num_rounds", "cohort_size", "clipping_norm", "server"):
        assert getattr(private, name) == getattr(clear, name)
    assert private.recipe.learning_rate == clear.recipe.learning_rate


def test_every_run_opens_a_new_stream():
    plan = DemoPlan()

    assert configurations(plan)[PRIVATE].stream != configurations(plan)[PRIVATE].stream


def run_json(epsilon):
    look = {"average_precision": 0.4, "auc": 0.8, "loss": 0.3, "prevalence": 0.02}
    spent = [None, None] if epsilon is None else [1.2, epsilon]
    return {
        "config": {"epsilon": epsilon},
        "start_metrics": look,
        "rounds": [
            {"index": 0, "metrics": None, "epsilon_release": spent[0]},
            {"index": 1, "metrics": look | {"loss": 0.2}, "epsilon_release": spent[1]},
        ],
    }


def test_learning_curve_starts_before_the_first_round_with_nothing_spent():
    curve = learning_curve(run_json(2.0))

    assert [(point.round, point.epsilon, point.loss) for point in curve] == [
        (0, 0.0, 0.3),
        (2, 2.0, 0.2),
    ]


def test_learning_curve_without_noise_has_no_epsilon():
    assert [point.epsilon for point in learning_curve(run_json(None))] == [None, None]


def test_what_calibrates_a_candidate_does_not_judge_it():
    halves = ReferenceHalves.of(7)

    assert not (halves.calibrate & halves.judge).any()
    assert (halves.calibrate | halves.judge).all()
