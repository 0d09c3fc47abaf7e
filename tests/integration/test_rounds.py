"""A real Flower run in its simulation engine: Ray workers, Opacus, ledger, files.

One start of the engine carries out three runs over a small fleet: private, without noise, and the
private one again, to compare.
"""

import json
import logging
from datetime import UTC, datetime

import numpy as np
import pytest

from models.training.local_epochs import new_flat_weights
from models.wire.rounds import LocalRecipe
from privacy import events_of, read_ledger, release_epsilon
from server.engine.quality_looks import HeldOutPart
from server.engine.rounds import RoundsConfig
from server.flower_app import PlannedRun
from server.privacy_home.ledger_file import LEDGER_FILE
from server.runs.folder import RunFolder
from server.streams.stream_files import read_checkpoint
from simulations.federation import run_planned
from simulations.fleet_rows import FleetRows
from simulations.seeded_noise import SeededNoise
from simulations.seeded_streams import SeededKeys
from tests.support.made_up_rows import made_up_rows

pytestmark = pytest.mark.slow

NUM_DEVICES = 12
NAMES = ("private", "without_noise", "private_again")


@pytest.fixture(scope="module")
def rows():
    return FleetRows(
        device_ids=tuple(f"d{number:02d}" for number in range(NUM_DEVICES)),
        training=made_up_rows(190, num_devices=NUM_DEVICES - 1),
        held_out=made_up_rows(100, seed=5, num_devices=6),
    )


@pytest.fixture(scope="module")
def runs(rows, tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs")
    start = new_flat_weights(seed=1)
    planned = {}
    for name in NAMES:
        is_private = name != "without_noise"
        config = RoundsConfig(
            stream="test" if is_private else "test-without",
            num_rounds=2,
            cohort_size=9,
            clipping_norm=0.5,
            epsilon=4.0 if is_private else None,
            delta=1e-5,
            recipe=LocalRecipe(record_noise_multiplier=1.25 if is_private else 0.0),
        )
        planned[name] = PlannedRun(
            config=config,
            folder=RunFolder(folder / name),
            start=start,
            source=SeededNoise(3, "release", config.stream),
            keys=SeededKeys(3),
            evaluate=HeldOutPart(rows.held_out).metrics,
        )
    handlers = logging.getLogger("flwr").handlers[:]
    run_planned(
        list(planned.values()),
        rows,
        seed=3,
        clock=lambda: datetime.now(UTC),
        log_file=folder / "flower.log",
        num_workers=2,
    )
    assert logging.getLogger("flwr").handlers == handlers
    return planned


def test_every_invited_device_is_in_the_sums_of_every_round(runs):
    for run in runs.values():
        rounds = run.report["rounds"]
        assert [(r["index"], r["invited"], r["replied"], r["refused"]) for r in rounds] == [
            (0, 9, 9, {}),
            (1, 9, 9, {}),
        ]
        assert run.report["status"] == "finished"


def test_weights_move_and_are_kept(runs):
    for run in runs.values():
        kept = np.load(run.folder.path / "weights.npz", allow_pickle=False)["weights"]
        assert np.array_equal(kept, run.result())
        assert np.abs(kept - run.start).max() > 0.01
        checkpoint = read_checkpoint(run.folder.path)
        assert checkpoint.index == 1
        assert np.array_equal(checkpoint.state.weights.astype(np.float32), kept)


def test_a_seeded_run_repeats_bit_for_bit_on_workers_of_any_order(runs):
    assert np.array_equal(runs["private"].result(), runs["private_again"].result())
    assert not np.array_equal(runs["private"].result(), runs["without_noise"].result())


def test_report_agrees_with_the_ledger(runs):
    run = runs["private"]
    report = json.loads((run.folder.path / "run.json").read_text(encoding="utf-8"))
    text = (run.folder.path / LEDGER_FILE).read_text(encoding="ascii")
    entries = read_ledger(text, head=report["privacy"]["ledger_head"]["hash"])
    assert [entry.kind for entry in entries] == ["simulated", "simulated"]
    derived = release_epsilon(events_of(entries), delta=1e-5)
    assert report["privacy"]["epsilon_release"] == pytest.approx(derived)
    assert {entry.fields["event"]["type"] for entry in entries} == {"correlated_release"}
    # 2 rounds of 9 over 12 devices: someone is invited twice, and ε was planned for that.
    assert report["schedule"]["participations"] == 2
    assert derived == pytest.approx(4.0, rel=1e-6)


def test_every_epsilon_stands_beside_its_delta_unit_and_assumptions(runs):
    privacy = runs["private"].report["privacy"]
    assert privacy["delta"] == 1e-5
    assert "its whole life" in privacy["unit_of_privacy"]
    assert "another home is not covered" in privacy["unit_of_privacy"]
    assert "replaced by zero" in privacy["neighboring_relation"]
    assert len(privacy["assumptions"]) >= 3
    assert (privacy["epsilon_server"], privacy["epsilon_server_unbounded"]) == (None, True)
    assert privacy["record_epsilon"] > 0
    assert privacy["record_delta"] == 1e-5
    assert privacy["record_unit"].startswith("one training row")
    assert "enough rows" in privacy["record_unit"]


def test_a_run_without_noise_is_unbounded_and_stamped_for_comparison(runs):
    privacy = runs["without_noise"].report["privacy"]
    assert privacy["epsilon_release"] is None
    assert privacy["epsilon_release_unbounded"] is True
    assert privacy["record_epsilon"] is None
    assert privacy["entry_kind"] == "comparison"


def test_metrics_come_from_the_held_out_part(runs):
    report = runs["without_noise"].report
    assert report["start_metrics"]["loss"] > 0
    assert report["rounds"][1]["metrics"]["average_precision"] > 0


def test_engine_leaves_neither_processes_nor_scratch_files(runs):
    import ray

    assert not ray.is_initialized()
    log = (runs["private"].folder.path.parent / "flower.log").read_text(encoding="utf-8")
    assert "Terminated RayBackend" in log
