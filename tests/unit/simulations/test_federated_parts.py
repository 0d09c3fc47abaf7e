"""Seeded noise, the split of a fleet, and rows on disk."""

import numpy as np
import pytest
from scipy import stats

from privacy import IndependentGaussian
from server.engine.quality_looks import HeldOutPart
from simulations.partition import block_of_devices
from simulations.seeded_noise import SeededNoise
from simulations.training_row_files import RowFiles, write_row_files
from tests.support.made_up_rows import made_up_rows

IDS = [f"sim-{number}" for number in range(1000)]


def test_seeded_noise_repeats_for_a_purpose_and_differs_between_purposes():
    first = SeededNoise(1, "device", "a", 0).gaussian(5, std=2.0)
    assert np.array_equal(first, SeededNoise(1, "device", "a", 0).gaussian(5, std=2.0))
    for other in (SeededNoise(2, "device", "a", 0), SeededNoise(1, "device", "a", 1)):
        assert not np.array_equal(first, other.gaussian(5, std=2.0))


def test_seeded_noise_is_gaussian_and_its_entries_are_stamped_simulated():
    source = SeededNoise(1, "release")
    assert stats.kstest(source.gaussian(5000, std=3.0), "norm", args=(0, 3)).pvalue > 1e-4
    assert stats.kstest(source.uniform(5000), "uniform").pvalue > 1e-4
    noise = IndependentGaussian(source, noise_multiplier=1.0, clipping_norm=1.0)
    assert noise.entry_kind == "simulated"


def test_blocks_are_even():
    sizes = np.bincount(block_of_devices(IDS, num_blocks=7))
    assert len(sizes) == 7
    assert sizes.max() - sizes.min() <= 1


def test_meaningless_splits_are_refused():
    with pytest.raises(ValueError, match="num_blocks"):
        block_of_devices(IDS, num_blocks=0)


def test_rows_come_back_from_disk_device_by_device(tmp_path):
    rows = made_up_rows(20, num_devices=3)
    ids = ["a", "b", "c", "without rows"]
    write_row_files(tmp_path, device_ids=ids, rows=rows, num_blocks=2)
    files = RowFiles(tmp_path)
    blocks = [files.device_ids(0), files.device_ids(1)]
    assert sorted(blocks[0] + blocks[1]) == sorted(ids)
    for number, device_id in enumerate(ids[:3]):
        expected, read = rows.take(rows.device == number), files.rows(device_id)
        assert np.array_equal(read.features, expected.features, equal_nan=True)
        for name in ("exposure", "event_bin", "cause"):
            assert np.array_equal(getattr(read, name), getattr(expected, name))
            assert getattr(read, name).dtype == getattr(expected, name).dtype
    assert len(files.rows("without rows")) == 0


def test_held_out_part_ranks_by_what_is_known_of_the_next_month():
    from models.training.local_epochs import new_flat_weights

    part = HeldOutPart(made_up_rows(100, num_devices=6), every_days=1)
    metrics = part.metrics(new_flat_weights(seed=0))
    # Two of six devices fail at the end of their 100 days: 30 of each one's rows are positive.
    assert len(part) == 600
    assert metrics["prevalence"] == pytest.approx(60 / 600)
    assert 0 < metrics["average_precision"] < 1
    assert np.isfinite(metrics["loss"])
