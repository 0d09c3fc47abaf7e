"""A clipping norm that adapts, in whole runs: finds its quantile, costs what it says, resumes."""

import json
import subprocess
import sys
import threading
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache

import dp_accounting
import mpmath
import numpy as np
import pytest
from dp_accounting.pld import PLDAccountant

from edge_client.flower_app import client_app
from edge_client.local_training import local_trainer
from models.training.local_epochs import new_flat_weights
from models.wire.rounds import LocalRecipe
from privacy.accountant import mu_of_releases
from privacy.statement import ADAPTIVE
from server.engine.flower_messages import ask_for_devices
from server.engine.rounds import RoundsConfig
from server.engine.server_optimizer import ServerRecipe
from server.flower_app import PlannedRun, carry_out
from server.privacy_home.ledger_report import home_report
from server.runs.folder import RunFolder
from simulations.in_process_grid import InProcessGrid
from simulations.seeded_noise import SeededNoise
from simulations.seeded_streams import SeededKeys
from tests.support.made_up_rows import made_up_rows
from tests.support.random_schedules import exact_epsilon
from tests.support.system_parts import REPOSITORY

NODES, DEVICES_OF_A_NODE, COHORT, ROUNDS = 2, 120, 80, 36
KINDS = 60
"""Different devices; each stands for several."""
DELTA = 1e-8
RECIPE = LocalRecipe(
    steps=1,
    sampling_rate=1.0,
    expected_batch_size=30,
    least_rows=20,
    record_noise_multiplier=0.0,
)
STILL = ServerRecipe(optimizer="fedavg", learning_rate=1e-9)
WEIGHTS = new_flat_weights(seed=1)


@cache
def rows_of(number):
    return made_up_rows(21 + 4 * (number % 12), seed=number)


@dataclass(frozen=True)
class Block:
    """Made-up devices behind a node."""

    number: int

    @property
    def device_ids(self):
        return tuple(f"device-{self.number}-{each:03d}" for each in range(DEVICES_OF_A_NODE))

    def rows(self, device_id):
        return rows_of(int(device_id[-3:]) % KINDS)

    def source(self, device_id, *, stream, index):
        return SeededNoise(7, stream, device_id, index)


@cache
def lengths():
    """ℓ2 norms of the devices' updates before clipping."""
    trainer = local_trainer(RECIPE)
    devices = [(rows_of(n), SeededNoise(8, n)) for n in range(KINDS)]
    return np.linalg.norm(trainer.changes(devices, weights=WEIGHTS), axis=1)


def run_of(folder, *, first_norm, quantile, rounds=ROUNDS, stop_after=None):
    """Carry out a run, or its rest, and return the run with the records of its rounds."""
    stop, records = threading.Event(), []
    config = RoundsConfig(
        stream="simulated-3",
        num_rounds=rounds,
        cohort_size=COHORT,
        clipping_norm=first_norm,
        epsilon=8.0,
        delta=DELTA,
        recipe=RECIPE,
        server=STILL,
        target_quantile=quantile,
    )

    def on_round(record):
        records.append(record)
        if record.index == stop_after:
            stop.set()

    is_resumed = folder.exists()
    held = RunFolder(folder, is_resumed=is_resumed)
    run = PlannedRun(
        config=held.config() if is_resumed else config,
        folder=held,
        start=WEIGHTS,
        keys=SeededKeys(3),
        source=SeededNoise(3),
        is_resumed=is_resumed,
        on_round=on_round,
    )
    app = client_app(lambda context: Block(int(context.node_config["partition-id"])))
    with InProcessGrid.of_blocks(app, NODES) as grid:
        roster = ask_for_devices(grid, num_nodes=NODES, deadline_s=30, stop=stop)
        carry_out(run, grid, roster=roster, stop=stop, clock=lambda: datetime.now(UTC))
    return run, records


@pytest.mark.parametrize(("factor", "quantile"), [(10.0, 0.5), (0.1, 0.8)])
def test_the_norm_finds_its_quantile_from_ten_times_too_far_and_the_ledger_tells_the_cost(
    tmp_path, factor, quantile
):
    sought = float(np.quantile(lengths(), quantile))
    run, records = run_of(tmp_path / "run", first_norm=factor * sought, quantile=quantile)
    norms = np.array([record.clipping_norm for record in records])
    assert norms[0] == pytest.approx(factor * sought)
    assert not any(record.refused for record in records)
    unclipped = float(np.mean(lengths() <= np.exp(np.log(norms[-8:]).mean())))
    assert unclipped == pytest.approx(quantile, abs=0.15)
    policy = run.folder.terms().policy.privacy
    taken = records[-1].most_participations
    with mpmath.workdps(30):
        of_step = mpmath.mpf(policy.noise_multiplier) ** -2
        of_step += mpmath.mpf(policy.clip_noise_multiplier) ** -2
        exact = exact_epsilon(taken * of_step)
    said = run.report["privacy"]["epsilon_stream"]
    assert exact <= said <= exact * mpmath.mpf("1.001")
    accountant = PLDAccountant(value_discretization_interval=1e-3 * said)
    accountant.compose(dp_accounting.GaussianDpEvent(policy.noise_multiplier), taken)
    accountant.compose(dp_accounting.GaussianDpEvent(policy.clip_noise_multiplier), taken)
    assert said == pytest.approx(accountant.get_epsilon(DELTA), rel=1e-4)
    assert said <= 8.0 * (1 + 1e-9)


def test_whatever_is_told_of_a_run_tells_of_the_bits(tmp_path):
    run, records = run_of(tmp_path / "run", first_norm=0.1, quantile=0.5, rounds=3)
    assert ADAPTIVE in run.report["privacy"]["assumptions"]
    assert [one["clipping_norm"] for one in run.report["rounds"]] == [
        record.clipping_norm for record in records
    ]
    told = home_report(tmp_path / "run", delta=DELTA)
    assert ADAPTIVE in told["assumptions"]
    privacy = run.folder.terms().policy.privacy
    assert [one["clip_noise_multiplier"] for one in told["streams"]] == [
        privacy.clip_noise_multiplier
    ]
    assert [one["mu_squared"] for one in told["releases"]] == pytest.approx(
        [privacy.step_mu_squared] * 3
    )
    events = [entry.event for entry in run.folder.home.entries]
    assert mu_of_releases(events) ** 2 == pytest.approx(
        records[-1].most_participations * privacy.step_mu_squared
    )


def test_a_run_that_was_stopped_goes_on_from_the_norm_that_it_had(tmp_path):
    _, whole = run_of(tmp_path / "whole", first_norm=0.1, quantile=0.5, rounds=6)
    _, first = run_of(tmp_path / "cut", first_norm=0.1, quantile=0.5, rounds=6, stop_after=2)
    run, rest = run_of(tmp_path / "cut", first_norm=9.9, quantile=0.5, rounds=6)
    assert run.report["status"] == "finished"
    assert [record.index for record in first + rest] == list(range(6))
    norms = [record.clipping_norm for record in first + rest]
    assert norms == [record.clipping_norm for record in whole]
    assert len(set(norms)) == 6


def killed(folder, *, rounds, seed, timeout_s):
    """Let another process kill a stream at every step, and return what it found."""
    asked = [str(folder), str(rounds), str(seed), "0.8"]
    ran = subprocess.run(
        [sys.executable, "-m", "tests.support.stream_crashes", *asked],
        capture_output=True,
        text=True,
        cwd=REPOSITORY,
        timeout=timeout_s,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr[-4000:]
    return json.loads(ran.stdout)


def test_a_stream_killed_at_every_step_ends_with_the_norm_of_one_never_killed(tmp_path):
    found = killed(tmp_path, rounds=4, seed=1, timeout_s=60)
    assert found["kills"] >= 16
    assert found["noise_only"] >= 2
    assert found["is_bit_identical"]
    # Two steps that move it as far as one may can take it there and back.
    assert any(norm != 1.0 for norm in found["norms"])


@pytest.mark.soak
def test_a_stream_of_two_hundred_rounds_killed_at_every_step_ends_with_the_same_norm(tmp_path):
    found = killed(tmp_path, rounds=200, seed=2, timeout_s=1800)
    assert found["is_bit_identical"]
