"""The gate: devices run the candidate only where no figure of it is worse."""

from dataclasses import replace

import pytest

from simulations.gate import SLACK, decide
from tests.support.run_reports import quality

DEFAULT = quality(average_precision=0.41, f1=0.45, ece=0.010)


def candidate(**changes):
    return replace(quality(average_precision=0.44, f1=0.46, ece=0.011), **changes)


def test_better_candidate_passes_and_says_by_how_much():
    decision = decide(default=DEFAULT, candidate=candidate())

    assert decision.passed
    assert "average precision 0.440 (default 0.410)" in decision.why
    assert "calibration error 0.011 (default 0.010)" in decision.why


def test_candidate_that_equals_the_default_is_not_worse():
    assert decide(default=DEFAULT, candidate=DEFAULT).passed


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        (
            {"average_precision": 0.39},
            "average precision is 0.390, that of the default bundle 0.410",
        ),
        ({"f1": 0.43}, "F1 is 0.430, that of the default bundle 0.450"),
        ({"ece": 0.021}, "calibration error is 0.021, that of the default bundle 0.010"),
    ],
)
def test_one_worse_figure_is_enough_to_stop_a_candidate(changes, named):
    decision = decide(default=DEFAULT, candidate=candidate(**changes))

    assert not decision.passed
    assert named in decision.why


@pytest.mark.parametrize("changes", [{"average_precision": 0.405}, {"f1": 0.445}, {"ece": 0.018}])
def test_differences_within_the_slack_count_as_none(changes):
    assert decide(default=DEFAULT, candidate=candidate(**changes)).passed
    assert not decide(default=DEFAULT, candidate=candidate(**changes), slack=SLACK / 100).passed


@pytest.mark.parametrize("field", ["average_precision", "f1", "ece"])
def test_figure_that_cannot_be_measured_lets_nothing_pass(field):
    decision = decide(default=DEFAULT, candidate=candidate(**{field: None}))

    assert not decision.passed
    assert "cannot be measured" in decision.why


def test_figures_of_different_windows_are_refused():
    with pytest.raises(ValueError, match="same windows"):
        decide(default=DEFAULT, candidate=candidate(num_windows=DEFAULT.num_windows - 1))
