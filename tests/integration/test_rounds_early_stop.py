"""A run that stops early: which weights leave, why it ended, and where that is told."""

import json
import threading
from datetime import UTC, datetime

import numpy as np
import pytest

from edge_client.flower_app import client_app
from server.engine.early_stop import REFERENCE_QUALITY
from server.engine.flower_messages import ask_for_devices
from server.flower_app import carry_out
from server.runs.best_weights import BEST_FILE
from server.runs.folder import RunFolder
from server.runs.status import read_status
from server.streams.release_witness import weights_digest
from simulations.in_process_grid import InProcessGrid
from tests.support import watched_run
from tests.support.command_line import fedcell

ROUNDS, PATIENCE, SEED = 9, 2, 5
QUALITIES = (0.40, 0.42, 0.45, 0.43, 0.41)
"""At the start and after each round: the second round is the best, the fourth ends the run."""


def planned(folder, qualities, **changes):
    run = watched_run.planned(folder, ROUNDS, seed=SEED, patience=PATIENCE)
    return looking(run, qualities, **changes)


def looking(run, qualities, *, loss=0.25):
    left = iter(qualities)
    run.evaluate = lambda _weights: {
        "loss": loss,
        "average_precision": None,
        "auc": None,
        REFERENCE_QUALITY: next(left),
    }
    return run


def carried(run, *, stop_after=None):
    """Carry a run out; end it between two messages after so many rounds."""
    app = client_app(lambda context: watched_run.Block(int(context.node_config["partition-id"])))
    stop = threading.Event()
    if stop_after is not None:
        run.on_round = lambda record: stop.set() if record.index + 1 == stop_after else None
    with InProcessGrid.of_blocks(app, watched_run.NODES) as grid:
        roster = ask_for_devices(
            grid, num_nodes=watched_run.NODES, deadline_s=30.0, stop=threading.Event()
        )
        carry_out(run, grid, roster=roster, stop=stop, clock=lambda: datetime.now(UTC))
    return run


def weights_in(folder, name="weights.npz"):
    with np.load(folder / name, allow_pickle=False) as arrays:
        return arrays["weights"]


@pytest.fixture(scope="module")
def stopped(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "stopped"
    carried(planned(folder, QUALITIES))
    return folder


def test_the_weights_of_the_best_look_leave(stopped):
    report = json.loads((stopped / "run.json").read_text())
    best = report["rounds"][1]

    assert (len(report["rounds"]), report["leaves_round"]) == (4, 2)
    assert weights_digest(weights_in(stopped)) == best["weights_sha256"]
    assert report["record"]["end_sha256"] == best["weights_sha256"]
    assert report["rounds"][3]["weights_sha256"] != best["weights_sha256"]


@pytest.mark.parametrize("stop_after", [1, 2, 3])
def test_a_run_that_was_resumed_leaves_the_same_bits(stopped, tmp_path, stop_after):
    folder = tmp_path / "run"
    first = carried(planned(folder, QUALITIES), stop_after=stop_after)
    assert first.report["ended_because"] == "stopped"
    second = watched_run.planned(tmp_path / "unused", ROUNDS, seed=SEED, patience=PATIENCE)
    second.folder, second.is_resumed = RunFolder(folder, is_resumed=True), True
    carried(looking(second, QUALITIES[stop_after + 1 :]))

    for name in ("weights.npz", BEST_FILE, "start.npz"):
        assert np.array_equal(weights_in(folder, name), weights_in(stopped, name)), name
    reports = [json.loads((one / "run.json").read_text()) for one in (folder, stopped)]
    digests = [[one["weights_sha256"] for one in report["rounds"]] for report in reports]
    assert digests[0] == digests[1]


def test_it_is_told_why_the_run_ended_wherever_one_looks(stopped):
    report = json.loads((stopped / "run.json").read_text())
    status = read_status(stopped)
    last = json.loads((stopped / "engine.jsonl").read_text().splitlines()[-1])

    assert {report["ended_because"], status.ended_because, last["ended_because"]} == {"early_stop"}
    assert "stopped early after 4 of 9 rounds" in status.message
    assert "the weights of round 2" in status.message
    for words in (
        fedcell("rounds", "watch", stopped, "--once").out,
        fedcell("rounds", "history", stopped).out,
        fedcell("rounds", "explain", "last", stopped).out,
    ):
        assert "stopped early after 4 of 9 rounds" in " ".join(words.split())
    explained = " ".join(fedcell("rounds", "explain", "last", stopped).out.split())
    assert "comes next" not in explained
    assert "reference AP 0.4100" in explained


def test_where_no_round_did_better_the_start_leaves(tmp_path):
    run = carried(planned(tmp_path / "run", (0.40, 0.39, 0.38)))

    assert run.report["leaves_round"] == 0
    assert np.array_equal(run.weights, run.start)
    assert "no round did better" in read_status(tmp_path / "run").message


def test_a_run_that_runs_to_its_end_leaves_its_last_weights(tmp_path):
    rising = [0.4 + 0.01 * step for step in range(ROUNDS + 1)]
    run = carried(planned(tmp_path / "run", rising))

    assert (run.report["ended_because"], run.report["leaves_round"]) == ("all_rounds", ROUNDS)
    assert weights_digest(run.weights) == run.report["rounds"][-1]["weights_sha256"]


@pytest.mark.parametrize("share", [1, 2], ids=["of the start", "torn"])
def test_best_weights_of_another_making_do_not_leave(tmp_path, share):
    folder = tmp_path / "run"
    run = planned(folder, QUALITIES)

    def spoil(record):
        if record.index == 2:
            content = (folder / "start.npz").read_bytes()
            (folder / BEST_FILE).write_bytes(content[: len(content) // share])

    run.on_round = spoil
    carried(run)
    assert run.report["leaves_round"] == 4
    assert weights_digest(run.weights) == run.report["rounds"][3]["weights_sha256"]


def test_an_entry_of_another_run_in_the_home_never_pays_for_what_leaves(tmp_path):
    home, told = tmp_path / "home", []
    for name in ("first", "second"):
        run = watched_run.planned(tmp_path / f"no-{name}", 2, stream=name, max_participations=4)
        run.folder = RunFolder(tmp_path / name, home=home)
        run.on_round = lambda _record, run=run: told.append(run.report["leaves_entry"])
        carried(run)
        last = run.report["rounds"][-1]["ledger_hash"]
        assert run.report["leaves_entry"]["hash"] == last, name
    assert told == [None] * 4
