"""A model of rounds beside its peers on one split: what it learned from is not what judges it."""

import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from models.training import baselines
from tests.support.command_line import fedcell
from tests.support.cycling_files import write_cells

HELD_OUT = ("x-2", "x-11", "x-18", "x-23")
TRAINED = ("x-0", "x-1", "x-3", "x-4", "x-5", "x-6", "x-7", "x-8")
FADES = (0.0035, 0.0026, 0.0018, 0.0006)
PEERS = ["logistic_regression", "gradient_boosting"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A fleet of which a run would hold out four devices, predicted every other day."""
    folder = tmp_path_factory.mktemp("fleet")
    write_cells(folder / "cells.parquet", cells=(*HELD_OUT, *TRAINED), cycles=120, fade=3 * FADES)
    fedcell("import-cells", folder / "cells.parquet", "--out", folder / "fleet")
    fedcell("predict", "--fleet", folder / "fleet", "--every", "2d", "--out", folder / "p.parquet")
    return folder


def evaluate(folder, *options, table="p.parquet"):
    return fedcell(
        "evaluate", "--predictions", folder / table, "--fleet", folder / "fleet", *options
    )


def only(devices, folder, name):
    table = pq.read_table(folder / "p.parquet")
    mine = pc.is_in(table["device_id"], pc.cast(list(devices), table["device_id"].type))
    pq.write_table(table.filter(mine), folder / name)
    return name


def test_everything_is_judged_on_the_held_out_devices_alone(folder):
    table = only(HELD_OUT, folder, "held-out.parquet")
    expected = evaluate(folder, "--json", table=table).json()
    found = evaluate(folder, "--held-out", "--json").json()

    assert found["metrics"] == expected["metrics"]
    assert found["metrics"] != evaluate(folder, "--json").json()["metrics"]
    assert found["split"] == {"kind": "held_out", "devices_judged": 4, "devices_trained": 0}
    assert expected["split"] == {"kind": "all", "devices_judged": 4, "devices_trained": 0}


def test_peers_learn_from_the_other_devices_alone(folder, monkeypatch):
    seen = []

    def watched(name, *, train, **more):
        seen.append((name, train, len(more["test_features"])))
        return score_with_peer(name, train=train, **more)

    score_with_peer = baselines.score_with_peer
    monkeypatch.setattr(baselines, "score_with_peer", watched)
    found = evaluate(folder, "--held-out", "--baselines", "--json").json()

    listed = pq.read_table(folder / "fleet" / "devices.parquet")["device_id"].to_pylist()
    assert [name for name, _, _ in seen] == PEERS
    for name, (features, label, device), num_tested in seen:
        assert {listed[row] for row in device} == set(TRAINED)
        assert len(features) == len(label) == len(device)
        assert num_tested >= found["metrics"][name]["num_windows"] > 0
    assert len({m["num_windows"] for m in found["metrics"].values()}) == 1
    assert found["split"] == {"kind": "held_out", "devices_judged": 4, "devices_trained": 8}


@pytest.mark.parametrize(
    ("options", "line"),
    [
        ([], "judged on all 12 devices"),
        (["--baselines"], "judged on all 12 devices; peers cross-fitted by device"),
        (["--held-out"], "judged on 4 devices that rounds hold out"),
        (
            ["--held-out", "--baselines"],
            "judged on 4 devices that rounds hold out; peers trained on 8 others",
        ),
    ],
)
def test_the_table_says_which_devices_it_speaks_of(folder, options, line):
    assert evaluate(folder, *options).out.splitlines()[0] == line


def test_a_fleet_of_which_nothing_is_held_out_is_refused(folder):
    table = only(TRAINED, folder, "trained.parquet")
    found = evaluate(folder, "--held-out", table=table)

    assert found.is_refused(3, table, "rounds hold out", "without --held-out")
