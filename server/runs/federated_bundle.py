"""From the weights of federated rounds to a bundle, without a look at any device's data.

Calibration, threshold and surrogate tree come from a reference fleet that is nobody's: fitted on
devices of the fleet they would be releases that no ledger holds.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from models.hazard_bins import EDGES_DAYS
from models.metrics import Windows, quality
from models.model_card import LIMITS, PURPOSE, UNIT_DEVICE, Epsilon, ModelCard, PrivacyStatement
from models.training.export_onnx import network_of
from models.training.recipe import (
    TrainedModel,
    bundle_of,
    choose_threshold,
    fit_calibration,
    soon_labels,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from models.bundle import Bundle
    from models.metrics import Quality
    from models.parameters import Parameters
    from models.training_rows import TrainingRows

CALIBRATED_DAYS = 90
"""Calibration looks this far: the range in which A1's actions differ. Over the whole axis, the many
rows of healthy devices would decide it."""
LIMIT = (
    "Calibration, threshold and surrogate tree were chosen on a reference fleet that is nobody's."
)


def fitted(parameters: Parameters, reference: TrainingRows) -> TrainedModel:
    """Give weights a calibration and a threshold.

    Args:
        parameters: after the rounds.
        reference: rows of simulated devices.
    """
    calibration = fit_calibration(
        network_of(parameters), censored_after(reference, days=CALIBRATED_DAYS)
    )
    model = TrainedModel(parameters, calibration, 0.5)
    return TrainedModel(parameters, calibration, choose_threshold(model, [reference]))


def censored_after(rows: TrainingRows, *, days: int) -> TrainingRows:
    """Return the rows as if each had been watched for no more than some days.

    Args:
        rows: to learn from.
        days: an edge of the hazard bins.
    """
    end = EDGES_DAYS.index(days)
    exposure = rows.exposure.copy()
    exposure[:, end:] = 0.0
    seen = rows.event_bin < end
    return replace(
        rows,
        exposure=exposure,
        event_bin=np.where(seen, rows.event_bin, -1).astype(np.int8),
        cause=np.where(seen, rows.cause, -1).astype(np.int8),
    )


def privacy_statement(report: Mapping[str, Any]) -> PrivacyStatement:
    """Put the figures of a run's report into the form of a model card.

    Args:
        report: what stands in `run.json`.
    """
    privacy = report["privacy"]
    return PrivacyStatement(
        epsilon_release=Epsilon(
            value=privacy["epsilon_release"],
            delta=privacy["delta"],
            unit_of_privacy=privacy["unit_of_privacy"],
            assumptions="; ".join(
                (f"neighbours: {privacy['neighboring_relation']}", *privacy["assumptions"])
            ),
        ),
        epsilon_server=Epsilon(
            value=None,
            delta=None,
            unit_of_privacy=UNIT_DEVICE,
            assumptions="the operator sees clipped updates; secure aggregation does not exist yet",
        ),
        record_epsilon=Epsilon(
            value=privacy["record_epsilon"],
            delta=privacy["record_delta"],
            unit_of_privacy=privacy["record_unit"],
            assumptions="Poisson sampling of rows on the device, noise from its own entropy",
        ),
        ledger_entry={
            **(
                report.get("leaves_entry")
                or privacy["ledger_head"]
                or {"kind": privacy["entry_kind"]}
            ),
            "stream": report["config"]["stream"],
        },
    )


def quality_on_rows(model: TrainedModel, rows: TrainingRows) -> Quality:
    """Measure a model on the rows of devices that never trained."""
    label, known = soon_labels(rows)
    windows = Windows(rows.device, label, known, days_left=np.full(len(rows), np.nan))
    return quality(windows, probability=model.probability(rows.features), threshold=model.threshold)


def federated_bundle(
    model: TrainedModel,
    rows: TrainingRows,
    *,
    title: str,
    trained_on: tuple[str, ...],
    metrics: Mapping[str, Mapping[str, Quality]],
    limits: tuple[str, ...],
    report: Mapping[str, Any],
    explanation_reference: NDArray[np.float32] | None,
) -> Bundle:
    """Export the model of a run, unsigned.

    Args:
        model: what the rounds made, fitted.
        rows: simulated, for the surrogate tree and golden vectors.
        title: of the card.
        trained_on: what the card says of the training data.
        metrics: for the card, by what was judged on and model.
        limits: of this run, beside those that hold for every model.
        report: `run.json` of the rounds.
        explanation_reference: to keep; None makes a new one from `rows`.
    """
    card = ModelCard(
        title=title,
        purpose=PURPOSE,
        trained_on=trained_on,
        metrics=metrics,
        privacy=privacy_statement(report),
        limits=(*LIMITS, LIMIT, *limits),
    )
    return bundle_of(
        model,
        rows,
        name="federated",
        card=card,
        reference=explanation_reference,
        unseen=rows,
    )
