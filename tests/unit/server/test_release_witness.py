"""A release bears witness to its noise before its weights are kept."""

import numpy as np
import pytest

from privacy import UpdateGrid
from privacy.streams import CorrelatedNoise, new_stream_key
from server.audits.canary_audit import audited_policy
from server.engine.aggregation import mean_update
from server.privacy_home.privacy_errors import StreamRefusedError
from server.streams.release_witness import (
    WITNESS_FILE,
    bear_witness,
    least_noise_share,
    noise_share,
    read_witness,
    weights_digest,
)

SIZE = 5_000
POLICY = audited_policy(2.0, cohort_size=20)
GRID = UpdateGrid(clipping_norm=POLICY.privacy.clipping_norm)
TOTAL = np.full(SIZE, 10**8, np.int64)


def releases(factor=1.0, size=SIZE):
    stream = CorrelatedNoise(new_stream_key(), POLICY)
    for index in range(12):
        noise = factor * stream.noise(index, size)
        yield mean_update(TOTAL[:size], noise=noise, num_invited=20, grid=GRID)


@pytest.mark.parametrize("factor", [1.0, 0.5])
def test_share_of_noise_is_what_was_added_at_every_step(factor):
    shares = [
        noise_share(released, TOTAL, policy=POLICY, index=index)
        for index, released in enumerate(releases(factor))
    ]

    assert shares == pytest.approx([factor] * 12, rel=0.06)


@pytest.mark.parametrize("size", [1, 2, 10, 100, SIZE])
def test_honest_noise_of_any_size_is_enough_and_none_is_not(size):
    honest = [
        noise_share(released, TOTAL[:size], policy=POLICY, index=index)
        for index, released in enumerate(releases(size=size))
    ]
    bare = GRID.restore(TOTAL[:size]) / 20

    assert min(honest) >= least_noise_share(size)
    assert noise_share(bare, TOTAL[:size], policy=POLICY, index=3) < least_noise_share(size)


def test_witness_names_entry_and_weights_and_nothing_of_the_noise(tmp_path):
    weights = np.linspace(-1, 1, SIZE)
    facts = {"policy": POLICY, "weights": weights}
    for index, released in enumerate(releases()):
        bear_witness(tmp_path, released, TOTAL, index=index, entry_hash=f"{index:064}", **facts)

    found = read_witness(tmp_path)
    assert found == {f"{index:064}": weights_digest(weights) for index in range(12)}


@pytest.mark.parametrize("factor", [0.0, 0.5, float("nan")])
def test_release_with_too_little_noise_is_refused(tmp_path, factor):
    with pytest.raises(StreamRefusedError, match="less noise"):
        bear_witness(
            tmp_path,
            next(releases()) * factor,
            np.zeros(SIZE, np.int64),
            policy=POLICY,
            index=0,
            entry_hash="ab",
            weights=np.zeros(SIZE),
        )
    assert read_witness(tmp_path) == {}


@pytest.mark.parametrize("content", [b"", b"[1]", b"{\xff"])
def test_damaged_witness_says_nothing(tmp_path, content):
    (tmp_path / WITNESS_FILE).write_bytes(content)

    assert read_witness(tmp_path) == {}
