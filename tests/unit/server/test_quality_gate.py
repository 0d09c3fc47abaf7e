"""The gate: a candidate is proposed only where no figure of it is worse."""

from dataclasses import replace

import pytest

from server.engine.quality_gate import CELLS, REFERENCE, SLACK, Judged, decide
from tests.support.run_reports import quality

CURRENT = quality(average_precision=0.41, f1=0.45, ece=0.010)
ON_CELLS = quality(average_precision=0.97, f1=0.85, ece=0.080)


def judged(**changes):
    candidate = quality(average_precision=0.44, f1=0.46, ece=0.011)
    return Judged(REFERENCE, current=CURRENT, candidate=replace(candidate, **changes))


def on_cells(**changes):
    return Judged(CELLS, current=ON_CELLS, candidate=replace(ON_CELLS, **changes))


def test_better_candidate_passes_and_says_by_how_much():
    decision = decide([judged()])

    assert decision.passed
    assert "average precision 0.440 (in use 0.410)" in decision.why
    assert "calibration error 0.011 (in use 0.010)" in decision.why


def test_candidate_that_equals_the_model_in_use_is_not_worse():
    assert decide([Judged(REFERENCE, current=CURRENT, candidate=CURRENT)]).passed


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"average_precision": 0.39}, "average precision is 0.390, that of the model in use 0.410"),
        ({"f1": 0.43}, "F1 is 0.430, that of the model in use 0.450"),
        ({"ece": 0.021}, "calibration error is 0.021, that of the model in use 0.010"),
    ],
)
def test_one_worse_figure_is_enough_to_stop_a_candidate(changes, named):
    decision = decide([judged(**changes)])

    assert not decision.passed
    assert named in decision.why


@pytest.mark.parametrize("changes", [{"average_precision": 0.405}, {"f1": 0.445}, {"ece": 0.018}])
def test_differences_within_the_slack_count_as_none(changes):
    assert decide([judged(**changes)]).passed
    assert not decide([judged(**changes)], slack=SLACK / 100).passed


@pytest.mark.parametrize("field", ["average_precision", "f1", "ece"])
def test_figure_that_cannot_be_measured_lets_nothing_pass(field):
    decision = decide([judged(**{field: None})])

    assert not decision.passed
    assert "cannot be measured" in decision.why


def test_candidate_that_is_worse_on_public_cells_is_stopped_there():
    decision = decide([judged(), on_cells(average_precision=0.90)])

    assert not decision.passed
    assert "on public cells its average precision is 0.900" in decision.why


def test_calibration_on_public_cells_decides_nothing():
    assert decide([judged(), on_cells(ece=0.3)]).passed


def test_private_figures_veto_but_never_help():
    vetoed = decide([judged()], vetoes=["auc"])
    hopeless = decide([judged(f1=0.1)], vetoes=[])

    assert not vetoed.passed
    assert vetoed.vetoes == ("auc",)
    assert "worse beyond doubt in auc" in vetoed.why
    assert not hopeless.passed


def test_every_figure_that_was_looked_at_is_told():
    told = decide([judged(), on_cells()]).to_json()["checks"]

    assert [(check["dataset"], check["figure"]) for check in told] == [
        (REFERENCE, "average_precision"),
        (REFERENCE, "f1"),
        (REFERENCE, "ece"),
        (CELLS, "average_precision"),
        (CELLS, "f1"),
    ]


def test_nothing_is_decided_without_the_reference_fleet():
    with pytest.raises(ValueError, match="reference fleet must be among"):
        decide([on_cells()])


def test_figures_of_different_windows_are_refused():
    other = replace(CURRENT, num_windows=CURRENT.num_windows - 1)
    with pytest.raises(ValueError, match="same windows"):
        Judged(REFERENCE, current=CURRENT, candidate=other)
