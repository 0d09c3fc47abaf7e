import json
from dataclasses import replace

import pytest

from models.bundle import load_bundle
from models.metrics import Quality
from models.model_card import (
    NOT_APPLICABLE,
    UNIT_DEVICE,
    Epsilon,
    ModelCard,
    PrivacyStatement,
    public_data_statement,
)

UNIT_ROW = "one training row"
GOOD = Quality(
    num_windows=1234,
    prevalence=0.0312,
    auc=0.9,
    average_precision=0.61,
    threshold=0.3,
    precision=0.7,
    recall=0.5,
    f1=0.583,
    ece=None,
    mae_days_when_90_or_less=9.0,
    coverage_p10_p90=0.8,
    precision_at_prevalence={"0.01": 0.4},
)
CARD = ModelCard(
    title="Battery",
    purpose="Warns.",
    trained_on=("a fleet",),
    metrics={"cells": {"this model": GOOD, "do_nothing": replace(GOOD, f1=0.0)}},
    privacy=PrivacyStatement(
        epsilon_release=Epsilon(
            value=2.0, delta=1e-6, unit_of_privacy=UNIT_DEVICE, assumptions="an honest server"
        ),
        epsilon_server=Epsilon(
            value=None, delta=None, unit_of_privacy=UNIT_DEVICE, assumptions="none"
        ),
        record_epsilon=Epsilon(
            value=7.5, delta=1e-5, unit_of_privacy=UNIT_ROW, assumptions="Poisson sampling"
        ),
        ledger_entry={"kind": "stream", "stream": "2026-a"},
    ),
    limits=("small",),
)


def test_metrics_stand_beside_every_baseline_under_their_prevalence():
    text = CARD.to_markdown()

    assert "1,234 windows of 30 days, prevalence 3.12%" in text
    assert "| this model | 0.610 | 0.700 | 0.500 | 0.583 | - |" in text
    assert "| do_nothing | 0.610 | 0.700 | 0.500 | 0.000 | - |" in text


def test_every_privacy_figure_bears_delta_unit_and_assumptions():
    text = CARD.to_markdown()

    assert (
        f"epsilon_release: 2 at δ = 1e-06; unit of privacy: {UNIT_DEVICE}; an honest server" in text
    )
    assert f"epsilon_server: unbounded; unit of privacy: {UNIT_DEVICE}" in text
    assert f"record_epsilon: 7.5 at δ = 1e-05; unit of privacy: {UNIT_ROW}" in text
    assert "ledger entry: stream" in text


def test_the_card_for_machines_holds_the_same():
    card = json.loads(json.dumps(CARD.to_json(), allow_nan=False))

    assert card["schema_version"] == 1
    assert card["metrics"]["cells"]["this model"]["f1"] == 0.583
    assert card["privacy"]["record_epsilon"]["unit_of_privacy"] == UNIT_ROW
    assert card["limits"] == ["small"]


def test_public_data_spends_nothing():
    statement = public_data_statement({"cells": "ab"})

    assert statement.epsilon_release.value == statement.epsilon_server.value == 0
    assert statement.ledger_entry == {"kind": "public", "sources": {"cells": "ab"}}


def test_a_card_of_public_data_says_that_no_figure_applies():
    text = replace(CARD, privacy=public_data_statement({"cells": "ab"})).to_markdown()

    for name in ("epsilon_release", "epsilon_server", "record_epsilon"):
        assert f"- {name}: {NOT_APPLICABLE}\n" in text
    assert "δ" not in text


@pytest.mark.parametrize("part", ["privacy", "metrics", "limits", "trained_on", "version"])
def test_the_default_bundles_card_is_whole(part):
    bundle = load_bundle()

    assert bundle.card[part]
    assert bundle.version in bundle.files["model_card.md"].decode()
