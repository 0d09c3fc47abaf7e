"""From the weights of the private rounds to a signed bundle, and through the gate."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from models.bundle import load_bundle, sign_bundle, write_bundle
from models.hazard_bins import EDGES_DAYS
from models.model_card import UNIT_DEVICE, Epsilon, ModelCard, PrivacyStatement
from models.training.export_onnx import network_of
from models.training.recipe import (
    TrainedModel,
    bundle_of,
    choose_threshold,
    fit_calibration,
)
from models.trusted_keys import read_trusted_keys
from server.signer import public_key_json, public_key_path

from ..default_model import LIMITS, PURPOSE
from ..gate import decide
from .comparison import quality_on

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from numpy.typing import NDArray

    from models.bundle import Bundle
    from models.metrics import Quality
    from models.training_rows import TrainingRows
    from models.wire.envelope import SigningKey

    from ..gate import GateDecision
    from .plan import DemoPlan
    from .scene import JudgedFleet

BUNDLE_NAME = "federated"
CALIBRATED_DAYS = 90
"""Calibration looks this far: the range in which A1's actions differ. Over the whole axis, the many
rows of healthy devices would decide it."""
EXTRA_LIMITS = (
    "Calibration and threshold were chosen on a simulated fleet of the same kind.",
    "The devices of these rounds are simulated; nobody's privacy was at stake.",
)


@dataclass(frozen=True, slots=True)
class ReferenceHalves:
    """The devices of the reference fleet, dealt into two halves.

    What calibrates a candidate must not judge it as well.

    Attributes:
        calibrate: bool, shape (n_devices,).
        judge: bool, shape (n_devices,), the others.
    """

    calibrate: NDArray[np.bool_]
    judge: NDArray[np.bool_]

    @staticmethod
    def of(num_devices: int) -> ReferenceHalves:
        """Deal devices in turn."""
        calibrate = np.arange(num_devices) % 2 == 0
        return ReferenceHalves(calibrate, ~calibrate)


def fitted(
    start: TrainedModel, weights: NDArray[np.float32], reference: JudgedFleet
) -> TrainedModel:
    """Give new weights a calibration and a threshold, by simulated devices alone.

    Args:
        start: the model whose shape they have.
        weights: float32, shape (n_weights,).
        reference: the simulated reference fleet; its first half is used.
    """
    halves = ReferenceHalves.of(len(reference.fleet.profiles))
    rows = reference.rows.take(halves.calibrate[reference.rows.device])
    parameters = start.parameters.with_flat(weights)
    calibration = fit_calibration(
        network_of(parameters), censored_after(rows, days=CALIBRATED_DAYS)
    )
    model = TrainedModel(parameters, calibration, 0.5)
    return TrainedModel(parameters, calibration, choose_threshold(model, rows))


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


def through_the_gate(
    *, default: TrainedModel, candidate: TrainedModel, reference: JudgedFleet
) -> GateDecision:
    """Judge both on the second half of the reference fleet, and decide."""
    judge = ReferenceHalves.of(len(reference.fleet.profiles)).judge
    return decide(
        default=quality_on(reference, default, of_devices=judge),
        candidate=quality_on(reference, candidate, of_devices=judge),
    )


def privacy_statement(report: Mapping[str, Any], *, stream: str) -> PrivacyStatement:
    """Put the figures of a run's report into the form of a model card.

    Args:
        report: what stands in `run.json`.
        stream: of the run.
    """
    privacy = report["privacy"]
    assumptions = "; ".join(privacy["assumptions"])
    return PrivacyStatement(
        epsilon_release=Epsilon(
            value=privacy["epsilon_release"],
            delta=privacy["delta"],
            unit_of_privacy=privacy["unit_of_privacy"],
            assumptions=assumptions,
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
        ledger_entry={**(privacy["ledger_head"] or {}), "stream": stream},
    )


def candidate_bundle(
    model: TrainedModel,
    *,
    default: Bundle,
    reference: JudgedFleet,
    report: Mapping[str, Any],
    metrics: Mapping[str, Quality],
    plan: DemoPlan,
    key: SigningKey,
) -> Bundle:
    """Export and sign the model of the private rounds.

    Args:
        model: what the rounds made, fitted.
        default: the bundle from which they started; its explanation reference is kept.
        reference: simulated rows for golden vectors and surrogate tree.
        report: `run.json` of the private rounds.
        metrics: of all models on the judged fleet, for the card.
        plan: of the demo.
        key: a test key.
    """
    card = ModelCard(
        title="fedcell battery model after the demo's private rounds",
        purpose=PURPOSE,
        trained_on=(
            f"the bundle {default.version}, from which the rounds started",
            f"{plan.rounds} private rounds over {plan.devices:,} simulated devices",
        ),
        metrics={"Simulated fleet that never trained": metrics},
        privacy=privacy_statement(report, stream=report["config"]["stream"]),
        limits=(*LIMITS, *EXTRA_LIMITS),
    )
    bundle = bundle_of(
        model,
        reference.rows,
        name=BUNDLE_NAME,
        card=card,
        reference=default.explanation_reference,
    )
    return sign_bundle(bundle, key_id=key.verify_key.key_id, private_key=key.to_bytes())


def write_verified(bundle: Bundle, path: Path, *, key: SigningKey) -> Bundle:
    """Write a bundle and beside it the public key, and read it back as a device would.

    Raises:
        BundleError: it does not verify.
    """
    write_bundle(bundle, path)
    public = public_key_path(path)
    public.write_bytes(public_key_json(key.verify_key))
    return load_bundle(path, trusted_keys=read_trusted_keys(public))
