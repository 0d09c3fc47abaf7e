"""Cells become a fleet, the fleet a table of predictions, and the table is judged: as typed."""

import shutil

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from models.bundle import load_bundle
from models.cycling_cells import DAY_ZERO_S
from models.fleet_predictions import COLUMNS
from tests.support.command_line import fedcell
from tests.support.cycling_files import write_cells

NAMES = tuple(f"x-{number}" for number in range(8))
FADES = (0.0035, 0.003, 0.0026, 0.0022, 0.0018, 0.0014, 0.001, 0.0006)
RULES = ["predictions", "do_nothing", "capacity_rule", "linear_extrapolation"]
PEERS = ["logistic_regression", "gradient_boosting"]


@pytest.fixture(scope="module")
def workshop(tmp_path_factory):
    """Generated cells, imported and predicted by the default bundle."""
    folder = tmp_path_factory.mktemp("cells")
    write_cells(folder / "cells.parquet", cells=NAMES, cycles=120, fade=FADES)
    imported = fedcell(
        "import-cells", folder / "cells.parquet", "--out", folder / "fleet", "--json"
    )
    predicted = fedcell(
        "predict", "--bundle", "default", "--fleet", folder / "fleet", "--every", "1d",
        "--out", folder / "p.parquet", "--json",
    )  # fmt: skip
    return folder, imported, predicted


def test_an_import_sums_up_what_it_found(workshop):
    _, imported, _ = workshop

    assert imported.code == 0
    assert imported.json() | {"fleet": ""} == {
        "fleet": "",
        "devices": 8,
        "readings": 960,
        "failures": 5,
        "datasets": ["set"],
    }


def test_predictions_have_the_promised_columns_rows_and_statuses(workshop):
    folder, _, predicted = workshop
    table = pq.read_table(folder / "p.parquet")
    summary = predicted.json()

    assert predicted.code == 0
    assert table.column_names == list(COLUMNS)
    assert summary["num_rows"] == len(table) == 8 * 119
    assert summary["by_status"] == {"ok": 8 * 92, "insufficient_history": 8 * 27}
    assert summary["model_version"] == load_bundle().version
    assert set(table["model_version"].to_pylist()) == {load_bundle().version}
    days = np.array(table["days_to_failure_p50"].to_pylist(), float)
    assert np.isnan(days).sum() == 8 * 27


def test_cells_near_their_end_are_flagged_and_healthy_ones_are_not(workshop):
    table = pq.read_table(workshop[0] / "p.parquet").to_pydict()
    rows = list(zip(table["device_id"], table["as_of"], table["flagged"], strict=True))
    flagged = {name: [flag for device, _, flag in rows if device == name] for name in NAMES}

    # The first cell crosses end of life on cycle 58; the last keeps 93 % of its capacity.
    assert flagged["x-0"][54] is True
    assert not any(flagged["x-7"][40:])


def test_evaluation_names_every_model_beside_its_prevalence(workshop):
    folder, _, _ = workshop
    found = fedcell(
        "evaluate", "--predictions", folder / "p.parquet", "--fleet", folder / "fleet", "--json"
    )
    metrics = found.json()["metrics"]

    assert found.code == 0
    assert list(metrics) == RULES
    assert found.json()["horizon_days"] == 30
    assert len({m["num_windows"] for m in metrics.values()}) == 1
    assert all(0 < m["prevalence"] < 1 for m in metrics.values())
    assert metrics["predictions"]["average_precision"] > metrics["predictions"]["prevalence"]
    assert metrics["do_nothing"]["recall"] == 0
    assert metrics["predictions"]["auc"] > 0.8


@pytest.mark.slow
def test_baselines_train_the_central_peers_on_the_same_windows(workshop):
    folder, _, _ = workshop
    week = folder / "week.parquet"
    fedcell("predict", "--fleet", folder / "fleet", "--every", "7d", "--out", week)
    found = fedcell(
        "evaluate", "--predictions", week, "--fleet", folder / "fleet", "--baselines", "--json"
    )
    metrics = found.json()["metrics"]

    assert list(metrics) == RULES + PEERS
    assert len({m["num_windows"] for m in metrics.values()}) == 1
    assert all(metrics[name]["auc"] is not None for name in PEERS)


def test_people_read_tables_and_sentences(workshop):
    folder, _, _ = workshop
    text = fedcell(
        "evaluate", "--predictions", folder / "p.parquet", "--fleet", folder / "fleet"
    ).out
    again = fedcell(
        "predict", "--fleet", folder / "fleet", "--every", "30d", "--out", folder / "month.parquet"
    )

    assert "windows of 30 days, prevalence" in text
    assert all(name in text for name in RULES)
    assert "32 rows (24 ok, 8 insufficient_history)" in again.out
    assert str(folder / "month.parquet") in again.out


def test_prediction_never_opens_outcomes(workshop, tmp_path):
    shutil.copytree(workshop[0] / "fleet", tmp_path / "fleet")
    (tmp_path / "fleet" / "outcomes.parquet").write_bytes(b"garbage that nobody can read")
    found = fedcell("predict", "--fleet", tmp_path / "fleet", "--out", tmp_path / "p.parquet")

    assert found.code == 0
    here, there = (pq.read_table(f / "p.parquet") for f in (tmp_path, workshop[0]))
    assert here.equals(there)
    assert (
        fedcell(
            "evaluate", "--predictions", tmp_path / "p.parquet", "--fleet", tmp_path / "fleet"
        ).code
        == 3
    )


def test_without_flags_there_are_no_outcomes_to_judge_by(tmp_path):
    path = write_cells(tmp_path / "c.parquet", without=("eol_flag",), cycles=60)
    imported = fedcell("import-cells", path, "--out", tmp_path / "fleet")
    fedcell("predict", "--fleet", tmp_path / "fleet", "--out", tmp_path / "p.parquet")
    judged = fedcell(
        "evaluate", "--predictions", tmp_path / "p.parquet", "--fleet", tmp_path / "fleet"
    )

    assert "outcomes unknown" in imported.out
    assert not (tmp_path / "fleet" / "outcomes.parquet").exists()
    assert judged.is_refused(3, "outcomes.parquet: no such file")


def test_the_calendar_of_this_machine_does_not_cut_cells_short(tmp_path):
    path = write_cells(tmp_path / "c.parquet", cells=("old",), cycles=4000, fade=(0.00001,))
    fedcell("import-cells", path, "--out", tmp_path / "fleet")
    found = fedcell(
        "predict", "--fleet", tmp_path / "fleet", "--out", tmp_path / "p.parquet", "--json"
    )

    assert found.json()["num_rows"] == 3999
    assert found.json()["refused"] == {}


@pytest.mark.cells
@pytest.mark.slow
def test_real_cells_are_imported_predicted_and_judged_beside_every_baseline(
    cells_directory, tmp_path
):
    """A dozen cells of one batch: ids, lives and ends as published."""
    whole = pq.read_table(cells_directory / "severson_b2.parquet")
    names = sorted(set(whole["cell_id"].to_pylist()))[:12]
    part = whole.filter(pc.is_in(whole["cell_id"], pa.array(names, whole["cell_id"].type)))
    pq.write_table(part, tmp_path / "cells.parquet")
    imported = fedcell(
        "import-cells", tmp_path / "cells.parquet", "--out", tmp_path / "fleet", "--json"
    ).json()
    predicted = fedcell(
        "predict", "--fleet", tmp_path / "fleet", "--every", "7d",
        "--out", tmp_path / "p.parquet", "--json",
    ).json()  # fmt: skip
    judged = fedcell(
        "evaluate", "--predictions", tmp_path / "p.parquet", "--fleet", tmp_path / "fleet",
        "--baselines", "--json",
    ).json()["metrics"]  # fmt: skip

    assert (imported["devices"], imported["readings"], imported["failures"]) == (12, len(part), 12)
    table = pq.read_table(tmp_path / "p.parquet").to_pydict()
    assert sorted(set(table["device_id"])) == names
    assert predicted["num_rows"] == len(table["status"]) > 500
    assert list(judged) == RULES + PEERS
    assert judged["predictions"]["auc"] > 0.9
    assert judged["predictions"]["average_precision"] > 3 * judged["predictions"]["prevalence"]
    source, ends = part.to_pydict(), {}
    for cell, day, flag in zip(source["cell_id"], source["day"], source["eol_flag"], strict=True):
        if flag == 1:
            ends[cell] = min(day, ends.get(cell, day))
    outcomes = pq.read_table(tmp_path / "fleet" / "outcomes.parquet").to_pydict()
    for cell, failed_at in zip(outcomes["device_id"], outcomes["failed_at"], strict=True):
        assert failed_at.timestamp() == DAY_ZERO_S + ends[cell] * 86_400
