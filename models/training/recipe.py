"""The recipe of a model: train, calibrate, choose the threshold, put the bundle together."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from ..band_reliability import fit_confidence_scales
from ..bundle import EVEN_SCALES, Bundle, build_bundle
from ..calibration import Calibration
from ..feature_spec import FEATURES, GROUPS, group_index
from ..hazard_bins import EDGES_DAYS, WIDTHS_DAYS
from ..metrics import best_f1_threshold
from ..prediction import HORIZON_DAYS, action_band
from ..training_rows import TrainingRows
from .central import as_batch, train_centrally
from .export_onnx import export_onnx, network_of, operators, parameters_of
from .losses import row_losses
from .outputs import numpy_outputs
from .surrogate_tree import ModelRows, fidelity_of, fidelity_text, surrogate_tree

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

    from ..model_card import ModelCard
    from ..parameters import Parameters
    from .network import HazardNetwork

SOON_BINS = EDGES_DAYS.index(HORIZON_DAYS)
HEALTHY_BINS = EDGES_DAYS.index(180)
OPTIONAL_GROUPS = ("charging", "resistance", "temperature", "shutdowns", "usage")
GOLDEN_ROWS = 24
GOLDEN_MISSING_SHARE = 0.1
TREE_ROWS = 60_000


@dataclass(frozen=True, slots=True, kw_only=True)
class RecipeSettings:
    """How a model is trained centrally.

    Attributes:
        num_steps: optimiser steps.
        batch_size: rows a step.
        learning_rate: peak of the one-cycle schedule.
        weight_decay: decoupled.
        input_jitter: noise on the scaled inputs in training.
        held_out_share: devices kept for calibration and threshold.
        all_absent_share: devices that are shown without every optional group of features, so that
            no data set can be recognised by what it lacks.
        group_absent_share: share of the other devices that lack each single group.
        equal_devices: exponent with which long-lived devices weigh less: rows are drawn in
            proportion to (rows of their device) ** −equal_devices.
    """

    num_steps: int = 3000
    batch_size: int = 2048
    learning_rate: float = 5e-3
    weight_decay: float = 1e-3
    input_jitter: float = 0.05
    held_out_share: float = 0.15
    all_absent_share: float = 0.35
    group_absent_share: float = 0.3
    equal_devices: float = 0.5


@dataclass(frozen=True, slots=True)
class TrainedModel:
    """What a recipe gives.

    Attributes:
        parameters: weights.
        calibration: of the hazards.
        threshold: 30-day probability from which a device is flagged.
    """

    parameters: Parameters
    calibration: Calibration
    threshold: float

    def network(self) -> HazardNetwork:
        """Return the network with these weights."""
        return network_of(self.parameters)

    def probability(self, features: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return the calibrated 30-day probability, shape (n,)."""
        outputs = numpy_outputs(self.network(), self.calibration, features)
        probability: NDArray[np.float32] = outputs["failure_probability_30d"]
        return probability


def train_model(
    training: Sequence[TrainingRows],
    threshold_rows: Sequence[TrainingRows],
    *,
    settings: RecipeSettings,
    seed: int,
    on_step: Callable[[int], None] | None = None,
) -> TrainedModel:
    """Train on most devices, calibrate and choose the threshold on the others.

    Args:
        training: row tables; no device may stand in two of them under different outcomes.
        threshold_rows: tables like those the model will meet, for the threshold by F1; each counts
            alike.
        settings: how.
        seed: of everything random.
        on_step: called with each step's number.
    """
    generator = np.random.default_rng(seed)
    kept, held_out = [], []
    for table in training:
        is_held_out = _devices(table, settings.held_out_share, generator)
        held_out.append(table.take(is_held_out))
        kept.append(_with_absent_groups(table.take(~is_held_out), settings, generator))
    rows = TrainingRows.concatenate(kept)
    if settings.equal_devices > 0:
        rows = _evened(rows, settings.equal_devices, generator)
    network = train_centrally(
        rows,
        seed=seed,
        num_steps=settings.num_steps,
        batch_size=settings.batch_size,
        learning_rate=settings.learning_rate,
        weight_decay=settings.weight_decay,
        input_jitter=settings.input_jitter,
        on_step=on_step,
    )
    calibration = fit_calibration(network, TrainingRows.concatenate(held_out))
    model = TrainedModel(parameters_of(network), calibration, 0.5)
    threshold = choose_threshold(model, threshold_rows)
    return TrainedModel(model.parameters, calibration, threshold)


def soon_labels(rows: TrainingRows) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Return (label, known) of each row: failed within 30 days, and whether that is known."""
    label = (rows.event_bin >= 0) & (rows.event_bin < SOON_BINS)
    lived = rows.exposure[:, :SOON_BINS].min(axis=1) >= 1
    return label, label | lived


def choose_threshold(model: TrainedModel, tables: Sequence[TrainingRows]) -> float:
    """Return the probability with the best F1, averaged over tables that count alike.

    Only rows whose next 30 days are known say something.
    """
    parts = []
    for rows in tables:
        label, known = soon_labels(rows)
        parts.append((label[known], model.probability(rows.features[known])))
    return best_f1_threshold(parts)


def fit_calibration(network: HazardNetwork, rows: TrainingRows) -> Calibration:
    """Fit scale and shift of the hazard logits by maximum likelihood under censoring."""
    if len(rows) == 0:
        return Calibration()
    batch = as_batch(rows)
    with torch.no_grad():
        logits, causes = network(batch[0])
    log_scale, shift = torch.zeros((), requires_grad=True), torch.zeros((), requires_grad=True)
    optimiser = torch.optim.LBFGS([log_scale, shift], max_iter=50, line_search_fn="strong_wolfe")

    def closure() -> torch.Tensor:
        optimiser.zero_grad()
        loss = row_losses(torch.exp(log_scale) * logits + shift, causes, batch).mean()
        loss.backward()  # type: ignore[no-untyped-call]
        return loss

    optimiser.step(closure)  # type: ignore[no-untyped-call]
    return Calibration(scale=float(torch.exp(log_scale.detach())), shift=float(shift.detach()))


def explanation_reference(rows: TrainingRows) -> NDArray[np.float32]:
    """Return the public reference device: medians over rows that live 180 days and more.

    A feature nobody measured takes the middle of its range.
    """
    healthy = rows.exposure[:, :HEALTHY_BINS].min(axis=1) >= 1
    features = rows.features[healthy]
    middle = np.array([(feature.low + feature.high) / 2 for feature in FEATURES], np.float32)
    measured = np.isfinite(features).any(axis=0)
    reference = middle.copy()
    reference[measured] = np.nanmedian(features[:, measured], axis=0)
    return reference


def synthetic_features(count: int, generator: np.random.Generator) -> NDArray[np.float32]:
    """Return rows drawn from the public ranges alone, a tenth of the values missing.

    Golden vectors travel with every bundle: nothing of a device may be in them.
    """
    low = np.array([feature.low for feature in FEATURES])
    high = np.array([feature.high for feature in FEATURES])
    values = low + (high - low) * generator.random((count, len(FEATURES)))
    values[generator.random(values.shape) < GOLDEN_MISSING_SHARE] = np.nan
    features: NDArray[np.float32] = values.astype(np.float32)
    return features


def bundle_of(
    model: TrainedModel,
    rows: TrainingRows,
    *,
    name: str,
    card: ModelCard,
    seed: int = 0,
    reference: NDArray[np.float32] | None = None,
    unseen: TrainingRows | None = None,
) -> Bundle:
    """Export a model as an unsigned bundle.

    Args:
        model: what was trained.
        rows: public or simulated rows for reference and tree; never a device's.
        name: what the version begins with.
        card: the model card.
        seed: of the sample of rows.
        reference: explanation reference to keep; None makes a new one from `rows`.
        unseen: simulated rows that the model was not trained on, for the scales of confidence;
            None leaves confidence as the network gives it.
    """
    generator = np.random.default_rng(seed)
    if reference is None:
        reference = explanation_reference(rows)
    sample = rows.take(generator.permutation(len(rows))[: 2 * TREE_ROWS])
    probability = model.probability(sample.features)
    said = ModelRows(sample.features, probability, probability >= model.threshold)
    is_fitted = sample.device % 2 == 0
    tree = surrogate_tree(said.where(is_fitted), said.where(~is_fitted), reference=reference)
    golden = synthetic_features(GOLDEN_ROWS, generator)
    model_bytes = export_onnx(model.parameters, model.calibration)
    calibration: dict[str, Any] = {
        "scale": model.calibration.scale,
        "shift": model.calibration.shift,
    }
    return build_bundle(
        name=name,
        model_bytes=model_bytes,
        operators=operators(model_bytes),
        flag_threshold=float(np.float32(model.threshold)),
        calibration=calibration,
        explanation_reference=reference,
        surrogate_tree=tree,
        confidence_scales=_confidence_scales(model, unseen),
        golden={"features": golden} | numpy_outputs(model.network(), model.calibration, golden),
        card=card.to_json() | {"surrogate_tree": fidelity_of(tree)},
        card_text=card.to_markdown() + fidelity_text(tree),
        ledger_entry=card.privacy.ledger_entry,
    )


def _confidence_scales(model: TrainedModel, unseen: TrainingRows | None) -> tuple[float, ...]:
    if unseen is None or len(unseen) == 0:
        return EVEN_SCALES
    outputs = numpy_outputs(model.network(), model.calibration, unseen.features)
    action = action_band(outputs["days_to_failure"][:, 1])
    bands = outputs["action_probabilities"]
    return fit_confidence_scales(
        confidence=bands[np.arange(len(bands)), action],
        action=action,
        duration_days=unseen.exposure.astype(np.float64) @ WIDTHS_DAYS,
        event_observed=unseen.event_bin >= 0,
    )


def _devices(rows: TrainingRows, share: float, generator: np.random.Generator) -> NDArray[np.bool_]:
    count = int(rows.device.max(initial=-1)) + 1
    picked: NDArray[np.bool_] = (generator.random(count) < share)[rows.device]
    return picked


def _with_absent_groups(
    rows: TrainingRows, settings: RecipeSettings, generator: np.random.Generator
) -> TrainingRows:
    count = int(rows.device.max(initial=-1)) + 1
    bare = generator.random(count) < settings.all_absent_share
    features = rows.features.copy()
    for name in OPTIONAL_GROUPS:
        lacks = bare | (generator.random(count) < settings.group_absent_share)
        columns = np.flatnonzero(np.array(group_index()) == GROUPS.index(name))
        lacking = np.flatnonzero(lacks[rows.device])
        features[np.ix_(lacking, columns)] = np.nan
    return TrainingRows(rows.device, features, rows.exposure, rows.event_bin, rows.cause)


def _evened(rows: TrainingRows, exponent: float, generator: np.random.Generator) -> TrainingRows:
    weight = np.bincount(rows.device)[rows.device].astype(np.float64) ** -exponent
    picked = generator.choice(len(rows), len(rows) // 2, p=weight / weight.sum())
    return rows.take(np.sort(picked))
