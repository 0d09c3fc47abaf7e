"""From the weights of the private rounds to a signed bundle, and through the gate."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from models.bundle import load_bundle, sign_bundle, write_bundle
from models.trusted_keys import read_trusted_keys
from server.engine.quality_gate import REFERENCE, Judged, decide
from server.engine.reference_fleet import ReferenceHalves
from server.runs.federated_bundle import federated_bundle, fitted
from server.signer import public_key_json, public_key_path

from .comparison import quality_on

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    import numpy as np
    from numpy.typing import NDArray

    from models.bundle import Bundle
    from models.metrics import Quality
    from models.training.recipe import TrainedModel
    from models.wire.envelope import SigningKey
    from server.engine.quality_gate import GateDecision

    from .plan import DemoPlan
    from .scene import JudgedFleet

EXTRA_LIMIT = "The devices of these rounds are simulated; nobody's privacy was at stake."


def fitted_on_reference(
    start: TrainedModel, weights: NDArray[np.float32], reference: JudgedFleet
) -> TrainedModel:
    """Give new weights a calibration and a threshold by the first half of the reference fleet.

    Args:
        start: the model whose shape they have.
        weights: float32, shape (n_weights,).
        reference: the simulated reference fleet.
    """
    halves = ReferenceHalves.of(len(reference.fleet.profiles))
    rows = reference.rows.take(halves.calibrate[reference.rows.device])
    return fitted(start.parameters.with_flat(weights), rows)


def through_the_gate(
    *, default: TrainedModel, candidate: TrainedModel, reference: JudgedFleet
) -> GateDecision:
    """Judge both on the second half of the reference fleet, and decide."""
    judge = ReferenceHalves.of(len(reference.fleet.profiles)).judge
    both = Judged(
        REFERENCE,
        current=quality_on(reference, default, of_devices=judge),
        candidate=quality_on(reference, candidate, of_devices=judge),
    )
    return decide([both])


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
    bundle = federated_bundle(
        model,
        reference.rows,
        title="fedcell battery model after the demo's private rounds",
        trained_on=(
            f"the bundle {default.version}, from which the rounds started",
            f"{plan.rounds} private rounds over {plan.devices:,} simulated devices",
        ),
        metrics={"Simulated fleet that never trained": metrics},
        limits=(EXTRA_LIMIT,),
        report=report,
        explanation_reference=default.explanation_reference,
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
