"""The group rule through the real loop: hostile nodes, groups' sums, and no release of it."""

import threading
from datetime import UTC, datetime

import numpy as np
import pytest

from models.training.local_epochs import new_flat_weights
from models.wire.rounds import LocalRecipe
from server.engine.flower_messages import ask_for_devices
from server.engine.group_rule import cost_in_report
from server.engine.rounds import RoundsConfig, RoundsError
from server.engine.server_optimizer import ServerRecipe
from server.flower_app import PlannedRun, carry_out
from server.runs.folder import RunFolder
from simulations.fleet_faults import Fault, FaultPlan, Lies
from simulations.hostile_fleet import FleetAtWork, FleetGrid
from simulations.rounds_summary import summary_lines
from tests.support.small_fleet import SmallFleet

NOW = datetime(2026, 3, 1, tzinfo=UTC)
FLEET = SmallFleet(30, 30)
START = new_flat_weights(seed=1)


def moved(folder, *, group_rule, poisoned, epsilon=None, num_groups=5):
    """How far the weights moved in two rounds."""
    config = RoundsConfig(
        stream="s",
        num_rounds=2,
        cohort_size=15,
        clipping_norm=1.0,
        epsilon=epsilon,
        delta=1e-6,
        noise="independent",
        group_rule=group_rule,
        num_groups=num_groups,
        recipe=LocalRecipe(least_rows=20, record_noise_multiplier=0.0, learning_rate=4.0),
        server=ServerRecipe(optimizer="fedavg", learning_rate=1.0, final_rate=1.0),
        deadline_s=5.0,
    )
    faults = FaultPlan(
        seed=1,
        poisoned=poisoned,
        poisons=(Fault.SIGN_FLIPPED,),
        lies=Lies.PAST_CLIPPING,
    )
    run = PlannedRun(config=config, folder=RunFolder(folder), start=START)
    grid, stop = FleetGrid(FleetAtWork(FLEET, faults, 1)), threading.Event()
    roster = ask_for_devices(grid, num_nodes=30, deadline_s=5.0, stop=stop)
    carry_out(run, grid, roster=roster, stop=stop, clock=lambda: NOW)
    return run.result() - START, run.report


def _lines(report):
    return summary_lines(report, result="nowhere")


@pytest.mark.parametrize("rule", ["median", "trimmed"])
def test_a_run_under_the_rule_learns_and_is_no_basis_for_a_release(tmp_path, rule):
    usual, _ = moved(tmp_path / "usual", group_rule="none", poisoned=0.0)
    robust, report = moved(tmp_path / rule, group_rule=rule, poisoned=0.0)
    cosine = np.dot(usual, robust) / np.linalg.norm(usual) / np.linalg.norm(robust)
    assert cosine > 0.8
    assert report["config"]["group_rule"] == rule
    assert report["privacy"]["policy"] is None
    assert report["privacy"]["entry_kind"] == "comparison"
    cost = cost_in_report(report)
    assert cost.num_groups == 5
    assert cost.prefix > cost.prefix_independent > cost.prefix_correlated
    assert any(line.startswith(f"group rule   {rule} of 5") for line in _lines(report))


def test_every_group_is_noised_by_itself(tmp_path):
    quiet, _ = moved(tmp_path / "quiet", group_rule="median", poisoned=0.0)
    noisy, report = moved(tmp_path / "noisy", group_rule="median", poisoned=0.0, epsilon=2.0)
    sigma = report["privacy"]["noise_multiplier"]
    one_sum = np.sqrt(2) * sigma * 1.0 / 15
    assert (noisy - quiet).std() > 2 * one_sum


def test_more_groups_than_nodes_are_refused_before_anybody_is_invited(tmp_path):
    with pytest.raises(RoundsError, match=r"3 to 30 \(the nodes\), got 31; say fewer groups"):
        moved(tmp_path / "run", group_rule="median", poisoned=0.0, num_groups=31)
