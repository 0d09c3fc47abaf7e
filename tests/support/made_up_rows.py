"""Made-up training rows: enough to train on, without a fleet."""

import numpy as np

from models.feature_spec import NUM_FEATURES
from models.hazard_bins import exposure
from models.training_rows import TrainingRows


def made_up_rows(num_rows=200, *, seed=0, num_devices=1, missing_share=0.1):
    """Rows of some devices; a third of the devices fail, and features hint at it."""
    generator = np.random.default_rng(seed)
    device = np.repeat(np.arange(num_devices), num_rows)
    days_left = np.tile(np.arange(num_rows, 0, -1, dtype=float), num_devices)
    failed = device % 3 == 0
    share, event_bin = exposure(np.where(failed, days_left, 400.0), failed)
    features = generator.normal(size=(len(device), NUM_FEATURES)).astype(np.float32)
    features[:, 9] = np.where(failed, days_left / num_rows, 1.0)
    features[generator.random(features.shape) < missing_share] = np.nan
    cause = np.where(event_bin >= 0, 0, -1).astype(np.int8)
    return TrainingRows(device.astype(np.intp), features, share, event_bin, cause)
