"""Rows of every kind and their clipped sums in closed form."""

import numpy as np

from models.closed_form import clipped_sums
from models.closed_form_batches import RaggedBatch, ScaledRows
from models.feature_spec import FEATURES
from models.hazard_bins import EDGES_DAYS, NUM_BINS, exposure
from models.network_shape import NUM_WEIGHTS
from models.telemetry import CAUSES
from models.training_rows import TrainingRows

BOUND = 1e-6


def random_weights(scale, *, seed=0, dtype=np.float32):
    return (scale * np.random.default_rng(seed).normal(size=NUM_WEIGHTS)).astype(dtype)


def row_of_every_kind(seed=0):
    """Failures in every bin with every cause and without one, censored rows, missing and extreme
    features, in no order."""
    generator = np.random.default_rng(seed)
    middles = (np.array(EDGES_DAYS[1:]) + np.array(EDGES_DAYS[:-1])) / 2
    failed = np.repeat(middles, len(CAUSES) + 1)
    cause = np.tile(np.arange(-1, len(CAUSES)), NUM_BINS)
    days = np.concatenate([failed, np.linspace(0.5, 1500, 40)])
    event = np.arange(len(days)) < len(failed)
    share, event_bin = exposure(days, event)
    features = np.array(
        [generator.uniform(f.low, f.high, len(days)) for f in FEATURES], np.float32
    ).T
    features[generator.random(features.shape) < 0.15] = np.nan
    features[3] = np.nan
    features[4], features[5] = 1e30, -1e30
    features[6], features[7] = np.inf, -np.inf
    return TrainingRows(
        device=np.zeros(len(days), np.intp),
        features=features,
        exposure=share,
        event_bin=event_bin,
        cause=np.concatenate([cause, np.full(40, -1)]).astype(np.int8),
    ).take(generator.permutation(len(days)))


def closed_form(weights, rows, *, max_grad_norm):
    scaled = ScaledRows.of(rows, dtype=weights.dtype)
    batch = RaggedBatch(scaled, (0, len(rows)))
    return clipped_sums(weights[None], batch, max_grad_norm=max_grad_norm)[0]


def distance(value, reference):
    """‖value − reference‖₂ / ‖reference‖₂."""
    return float(np.linalg.norm(value - reference) / np.linalg.norm(reference))
