"""The inversion attack on updates of the real network, on their real way into a release.

Gradients come from the closed form that devices train with; clipping, grid, noise and division are
those of production. The attacker knows the architecture, the weights, C and σ.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Final

import numpy as np

from models.closed_form import clipped_sums
from models.closed_form_batches import RaggedBatch, ScaledRows
from models.feature_spec import FEATURES
from models.hazard_bins import exposure
from models.network_shape import LAYERS, MASKED, NUM_WEIGHTS
from models.training_rows import TrainingRows
from privacy import OperatingSystemNoise, UpdateGrid, clip_update
from privacy.audit.inversion import is_recovered, recovered_record
from privacy.streams import CorrelatedNoise, new_stream_key

from ..engine.aggregation import CohortSum, mean_update

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from models.wire.rounds import LocalRecipe
    from privacy import NoiseSource, StreamPolicy

_OUTPUTS, _INPUTS = LAYERS[0]
_SEEN: Final = np.array([feature.name not in MASKED for feature in FEATURES] * 2)
_LONGEST_LIFE_DAYS: Final = 720.0


class Protection(StrEnum):
    """What stands between a record and the attacker."""

    NONE = "nothing"
    CLIPPING = "clipping"
    RECORD_NOISE = "record noise"
    RELEASE_NOISE = "release noise"
    BOTH = "release and record noise"


@dataclass(frozen=True, slots=True, kw_only=True)
class Victims:
    """Devices with one training record each, and the weights they train from.

    Attributes:
        rows: one a device.
        weights: float32, shape (n_weights,), which the attacker knows.
    """

    rows: ScaledRows
    weights: NDArray[np.float32]

    @staticmethod
    def drawn(count: int, *, source: NoiseSource) -> Victims:
        """Draw records within the public ranges, a tenth of the values missing, and weights."""
        low = np.array([feature.low for feature in FEATURES])
        high = np.array([feature.high for feature in FEATURES])
        shape = (count, len(FEATURES))
        features = low + (high - low) * source.uniform(shape[0] * shape[1]).reshape(shape)
        features[source.uniform(features.size).reshape(shape) < 0.1] = np.nan
        failed = source.uniform(count) < 0.5
        share, event_bin = exposure(source.uniform(count) * _LONGEST_LIFE_DAYS, failed)
        rows = TrainingRows(
            device=np.arange(count),
            features=features.astype(np.float32),
            exposure=share,
            event_bin=event_bin,
            cause=np.where(failed, 0, -1).astype(np.int8),
        )
        return Victims(rows=ScaledRows.of(rows), weights=_first_weights(source))


def recovered_records(
    victims: Victims,
    protection: Protection,
    *,
    policy: StreamPolicy,
    recipe: LocalRecipe,
    source: NoiseSource | None = None,
) -> int:
    """Count the records that the attack recovers within 1 %.

    Args:
        victims: each trains one step on its one record.
        protection: what stands between.
        policy: of the stream; gives C and σ.
        recipe: gives the learning rate, and σ_r and the bound of record noise.
        source: of record noise; the operating system's entropy unless given.
    """
    source = source or OperatingSystemNoise()
    count = len(victims.rows)
    batch = RaggedBatch(victims.rows, tuple(range(count + 1)))
    with_record_noise = protection in {Protection.RECORD_NOISE, Protection.BOTH}
    bound = recipe.record_max_grad_norm if with_record_noise else None
    sums = clipped_sums(victims.weights[None], batch, max_grad_norm=bound)
    if bound is not None:
        std = recipe.record_noise_multiplier * bound
        sums += source.gaussian(sums.size, std=std).reshape(sums.shape)
    changes = -recipe.learning_rate / recipe.expected_batch_size * sums
    recovered = 0
    for change, inputs in zip(changes, victims.rows.inputs, strict=True):
        seen_by_attacker = _on_its_way(change, protection, policy)
        found = recovered_record(seen_by_attacker, outputs=_OUTPUTS, inputs=_INPUTS, seen=_SEEN)
        recovered += is_recovered(found, inputs[:-1].astype(np.float64))
    return recovered


def _on_its_way(
    change: NDArray[np.float64], protection: Protection, policy: StreamPolicy
) -> NDArray[np.float64]:
    """What the attacker sees: the update, its clipped form, or a release of it alone.

    The release has one device. Of a larger cohort an attacker who knows every other update sees no
    more than this.
    """
    if protection is Protection.NONE:
        return change
    grid = UpdateGrid(clipping_norm=policy.privacy.clipping_norm)
    quantised = grid.quantise(clip_update(change, clipping_norm=grid.clipping_norm))
    if protection in {Protection.CLIPPING, Protection.RECORD_NOISE}:
        return grid.restore(quantised)
    cohort_sum = CohortSum.empty(NUM_WEIGHTS)
    cohort_sum.add(quantised, num_devices=1)
    noise = CorrelatedNoise(new_stream_key(), policy).noise(0, NUM_WEIGHTS)
    return mean_update(cohort_sum.total, noise=noise, num_invited=1, grid=grid)


def _first_weights(source: NoiseSource) -> NDArray[np.float32]:
    """Random weights as a network starts with: uniform within 1/√inputs, layer after layer."""
    parts = []
    for outputs, inputs in LAYERS:
        size = outputs * (inputs + 1)
        parts.append((2 * source.uniform(size) - 1) / np.sqrt(inputs))
    return np.concatenate(parts).astype(np.float32)
