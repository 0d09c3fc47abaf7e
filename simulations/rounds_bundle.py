"""From the weights of a run to an unsigned bundle, with calibration and threshold of its own.

Calibration and threshold are chosen on one half of the held-out devices and the figures on the card
come from the other, so that what chose them does not judge them. Held-out devices never train; in a
simulated fleet nobody's privacy is spent on looking at them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from models.bundle import load_bundle
from models.metrics import Windows, quality
from models.model_card import UNIT_DEVICE, Epsilon, ModelCard, PrivacyStatement
from models.training.export_onnx import network_of, parameters_of, read_parameters
from models.training.network import HazardNetwork
from models.training.outputs import numpy_outputs
from models.training.recipe import (
    TrainedModel,
    bundle_of,
    choose_threshold,
    fit_calibration,
    soon_labels,
)

from .default_model import LIMITS, PURPOSE

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from numpy.typing import NDArray

    from models.bundle import Bundle
    from models.metrics import Quality
    from models.training_rows import TrainingRows

BUNDLE_NAME = "rounds"


def weights_of_bundle(
    source: Path | str, *, trusted_keys: Mapping[str, bytes], allow_unsigned: bool
) -> tuple[NDArray[np.float32], str]:
    """Return a bundle's weights, float32, shape (n_weights,), and its version.

    Raises:
        BundleError: the bundle is refused, or was not exported by fedcell.
    """
    bundle = load_bundle(source, trusted_keys=trusted_keys, allow_unsigned=allow_unsigned)
    return read_parameters(bundle.model_bytes).flat(), bundle.version


def bundle_of_run(
    weights: NDArray[np.float32],
    held_out: TrainingRows,
    *,
    report: Mapping[str, Any],
    started_from: str,
) -> Bundle:
    """Export the result of a run.

    Args:
        weights: float32, shape (n_weights,).
        held_out: rows of simulated devices that never trained; at least one.
        report: what stands in `run.json`.
        started_from: version of the bundle from which the rounds started, or words for none.
    """
    is_first_half = held_out.device % 2 == 0
    fitted_on, judged_on = held_out.take(is_first_half), held_out.take(~is_first_half)
    parameters = parameters_of(HazardNetwork()).with_flat(weights)
    calibration = fit_calibration(network_of(parameters), fitted_on)
    threshold = choose_threshold(TrainedModel(parameters, calibration, 0.5), fitted_on)
    model = TrainedModel(parameters, calibration, threshold)
    schedule = report["schedule"]
    invited = f"{schedule['cohort_size']} of {schedule['population_size']}"
    card = ModelCard(
        title="fedcell battery model after federated rounds",
        purpose=PURPOSE,
        trained_on=(
            f"start: {started_from}",
            f"{len(report['rounds'])} rounds, {invited} simulated devices invited to each",
        ),
        metrics={"Simulated devices that never trained": {"rounds": _judged(model, judged_on)}},
        privacy=privacy_statement(report),
        limits=(*LIMITS, "Calibration and threshold were chosen on simulated devices."),
    )
    return bundle_of(model, held_out, name=BUNDLE_NAME, card=card)


def privacy_statement(report: Mapping[str, Any]) -> PrivacyStatement:
    """Put the figures of `run.json` into the form of a model card."""
    privacy = report["privacy"]
    return PrivacyStatement(
        epsilon_release=Epsilon(
            value=privacy["epsilon_release"],
            delta=privacy["delta"],
            unit_of_privacy=privacy["unit_of_privacy"],
            assumptions="; ".join(privacy["assumptions"]),
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
            assumptions="Poisson sampling of rows on the device",
        ),
        ledger_entry={**(privacy["ledger_head"] or {}), "stream": report["config"]["stream"]},
    )


def _judged(model: TrainedModel, rows: TrainingRows) -> Quality:
    label, known = soon_labels(rows)
    outputs = numpy_outputs(model.network(), model.calibration, rows.features)
    windows = Windows(
        device=rows.device,
        label=label,
        known=known,
        days_left=np.full(len(rows), np.nan),
    )
    return quality(
        windows,
        probability=outputs["failure_probability_30d"],
        threshold=model.threshold,
    )
