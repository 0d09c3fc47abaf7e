"""What the demo says of noise, and what it prints at its end."""

from dataclasses import replace
from pathlib import Path

import pytest

from simulations.demo.noise_cost import noise_statement
from simulations.demo.summary import closing_lines, legend_lines, summary_lines
from simulations.run_report_parts import RealCells
from tests.support.run_reports import quality, run_report


def statement(before, after, clear):
    return noise_statement(
        default=quality(average_precision=before),
        private=quality(average_precision=after),
        without_noise=quality(average_precision=clear),
        devices=600,
        noise_multiplier=7.0,
        num_weights=2500,
    )


@pytest.mark.parametrize(
    ("before", "after", "clear", "verdict"),
    [
        (0.40, 0.45, 0.48, "The private rounds help a fleet of 600 devices, and noise costs 0.030"),
        (0.40, 0.47, 0.475, "noise costs next to nothing"),
        (0.40, 0.36, 0.48, "Noise wins over a fleet of 600 devices"),
        (0.40, 0.36, 0.40, "Noise wins over a fleet of 600 devices"),
        (0.40, 0.405, 0.48, "Noise eats what a fleet of 600 devices could learn"),
        (0.40, 0.38, 0.37, "The rounds themselves do not help this fleet, noise or not"),
        (0.40, 0.402, 0.404, "The rounds change little"),
    ],
)
def test_statement_names_who_won_with_all_three_figures(before, after, clear, verdict):
    said = statement(before, after, clear)

    assert verdict in said
    for figure in (before, after, clear):
        assert f"{figure:.3f}" in said


def test_where_noise_wins_the_cohort_that_would_carry_it_is_named():
    assert "350 or more devices (σ √P)" in statement(0.40, 0.30, 0.48)
    assert "σ √P" not in statement(0.40, 0.45, 0.48)


def test_without_failures_nothing_is_claimed():
    assert "cannot be measured" in statement(None, None, None)


def test_summary_states_every_epsilon_with_delta_and_unit():
    text = " ".join(" ".join(summary_lines(run_report())).split())

    assert "ε_release 2.00 at δ = 10⁻⁵, for one device: all that it sends" in text
    assert "ε_server unbounded" in text
    assert "record ε 3.41 at δ = 10⁻⁵, for one training row" in text


def test_summary_says_what_noise_costs_which_bundle_runs_and_why():
    report = run_report()
    text = " ".join(" ".join(summary_lines(report)).split())

    assert report.noise_statement in text
    assert report.bundle_in_use.version in text
    assert report.bundle_in_use.why in text


def test_summary_counts_notices_and_names_the_reason_of_each_that_was_held_back():
    text = "\n".join(summary_lines(run_report()))

    assert "4 sent, 4 acknowledged, held back: quiet hours (1); over mosquitto" in text
    assert "demo-0012  urgent       battery.under_7 acknowledged" in text


def test_summary_of_a_run_without_cells_says_why():
    absent = RealCells(cells=None, metrics=None, reason="no real cells in here")
    seen = RealCells(cells=249, metrics=quality(average_precision=0.9, f1=None), reason=None)

    assert "not judged: no real cells in here" in "\n".join(
        summary_lines(run_report(real_cells=absent))
    )
    assert "249 cells: average precision 0.900, F1 -" in " ".join(
        summary_lines(run_report(real_cells=seen))
    )


def test_record_epsilon_is_left_out_where_it_is_off():
    report = replace(run_report(), record_epsilon=None, record_delta=None)

    assert not any("record ε" in line for line in summary_lines(report))


def test_last_lines_name_both_files():
    lines = closing_lines(run_report(), Path("runs/demo"), files=("report.json", "report.html"))

    assert lines[0].split() == ["took", "203", "s"]
    assert lines[-2].endswith("runs/demo/report.json")
    assert lines[-1].endswith("runs/demo/report.html")


def test_lines_fit_a_terminal():
    assert max(len(line) for line in [*legend_lines(), *summary_lines(run_report())]) <= 110
