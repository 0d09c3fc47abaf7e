"""From the weights of rounds to a bundle: what is fitted on what, and what the card says."""

import numpy as np
import pytest

from models.bundle import load_bundle
from models.hazard_bins import EDGES_DAYS, NUM_BINS
from models.training_rows import TrainingRows
from server.runs.federated_bundle import (
    LIMIT,
    censored_after,
    federated_bundle,
    fitted,
    privacy_statement,
)
from simulations.rounds import starting_parameters
from tests.support.made_up_rows import made_up_rows

HEAD = {"index": 9, "kind": "stream", "hash": "ab" * 32}


def report(**changes):
    """The part of `run.json` that the card quotes."""
    privacy = {
        "epsilon_release": 2.0,
        "delta": 1e-6,
        "unit_of_privacy": "one device",
        "neighboring_relation": "one device replaced by zero",
        "assumptions": ["trusted aggregator", "no sampling"],
        "record_epsilon": 3.0,
        "record_delta": 1e-5,
        "record_unit": "one row",
        "ledger_head": HEAD,
        "entry_kind": "stream",
    }
    return {"privacy": privacy | changes, "config": {"stream": "run-1"}}


def test_privacy_statement_quotes_the_entry_and_leaves_the_server_unbounded():
    statement = privacy_statement(report())

    assert (statement.epsilon_release.value, statement.epsilon_release.delta) == (2.0, 1e-6)
    assert statement.epsilon_release.assumptions == (
        "neighbours: one device replaced by zero; trusted aggregator; no sampling"
    )
    assert statement.epsilon_server.value is None
    assert (statement.record_epsilon.value, statement.record_epsilon.delta) == (3.0, 1e-5)
    assert statement.ledger_entry == {**HEAD, "stream": "run-1"}


def test_a_run_that_was_never_charged_is_named_by_its_kind():
    statement = privacy_statement(report(ledger_head=None, entry_kind="comparison"))

    assert statement.ledger_entry == {"kind": "comparison", "stream": "run-1"}


def rows_of(event_bins, days_at_risk):
    """Build rows that were at risk for whole bins up to an edge."""
    exposure = np.zeros((len(event_bins), NUM_BINS), np.float32)
    for row, days in enumerate(days_at_risk):
        exposure[row, : EDGES_DAYS.index(days)] = 1
    return TrainingRows(
        device=np.arange(len(event_bins)),
        features=np.zeros((len(event_bins), 1), np.float32),
        exposure=exposure,
        event_bin=np.array(event_bins, np.int8),
        cause=np.where(np.array(event_bins) >= 0, 0, -1).astype(np.int8),
    )


def test_rows_are_censored_after_some_days():
    soon, late = EDGES_DAYS.index(21), EDGES_DAYS.index(180)
    rows = censored_after(rows_of([soon, late, -1], [21, 180, 365]), days=90)

    assert rows.event_bin.tolist() == [soon, -1, -1]
    assert rows.cause.tolist() == [0, -1, -1]
    last = EDGES_DAYS.index(90)
    assert rows.exposure[:, last:].sum() == 0
    assert rows.exposure.sum(axis=1).tolist() == [soon, last, last]


@pytest.mark.slow
def test_exported_bundle_loads_and_its_card_says_what_was_fitted_on_what(tmp_path):
    reference = made_up_rows(60, num_devices=24)
    model = fitted(starting_parameters(None, seed=1), reference)
    bundle = federated_bundle(
        model,
        reference,
        title="a model",
        trained_on=("something",),
        metrics={},
        limits=("one more limit",),
        report=report(),
        explanation_reference=None,
    )
    for name, content in bundle.files.items():
        (tmp_path / name).write_bytes(content)
    loaded = load_bundle(tmp_path, allow_unsigned=True)
    assert loaded.version.startswith("federated-")
    assert loaded.threshold == pytest.approx(model.threshold)
    assert {LIMIT, "one more limit"} <= set(loaded.card["limits"])
    assert loaded.card["privacy"]["epsilon_release"]["delta"] == 1e-6
    assert loaded.card["privacy"]["ledger_entry"]["hash"] == HEAD["hash"]
