"""The clipping norm from step to step: after noise, within bounds, unmoved by noise alone."""

import math

import numpy as np
import pytest

from privacy.adaptive_clipping import AdaptiveClipping
from server.engine.server_optimizer import OptimizerState
from server.privacy_home.privacy_errors import StreamRefusedError
from server.streams.stream_files import (
    CHECKPOINT_FILE,
    Checkpoint,
    read_checkpoint,
    write_checkpoint,
)
from server.streams.stream_norm import StepNorm

CLIPPING = AdaptiveClipping(
    initial_norm=0.5, noise_multiplier=20.0, least_norm=0.45, greatest_norm=5.0
)


def released(norm, *mean, noise_only=False):
    update = norm.of_update(np.array(mean), noise_only=noise_only)
    norm.move()
    return update


def test_the_norm_is_applied_to_what_was_released_and_moves_for_the_next_step():
    norm = StepNorm(CLIPPING, 0.5)
    assert released(norm, 0.2, -0.4, -1.0).tolist() == [0.1, -0.2]
    assert (norm.before, norm.current) == (0.5, 0.5 * math.exp(0.1))
    assert released(norm, 1.0, 0.0, 1.0).tolist() == [norm.before, 0.0]
    assert norm.current == pytest.approx(0.5)


def test_noise_alone_leaves_the_norm_as_it_was_whatever_it_says_of_bits():
    norm = StepNorm(CLIPPING, 0.5)
    assert released(norm, 0.2, -7.0, noise_only=True).tolist() == [0.1]
    assert (norm.before, norm.current, norm.to_keep) == (0.5, 0.5, 0.5)


def test_a_fixed_norm_keeps_everything_as_it_comes():
    norm = StepNorm(None, 0.3)
    mean = np.array([0.2, -7.0])
    assert norm.of_update(mean, noise_only=False) is mean
    norm.move()
    assert (norm.before, norm.current, norm.to_keep) == (None, 0.3, None)
    assert norm.in_unit(mean) is mean


def test_what_was_stepped_with_is_held_against_the_noise_in_the_unit_of_its_sum():
    norm = StepNorm(CLIPPING, 0.5)
    update = norm.of_update(np.array([0.2, -0.4, 3.0]), noise_only=False)
    assert norm.in_unit(update) == pytest.approx([0.2, -0.4])


@pytest.mark.parametrize("kept", [None, 0.7])
def test_the_norm_that_comes_is_kept_with_the_weights(tmp_path, kept):
    state = OptimizerState.start(np.zeros(2, np.float32))
    write_checkpoint(
        tmp_path, Checkpoint(state=state, index=3, entry_hash="ab", clipping_norm=kept)
    )
    found = read_checkpoint(tmp_path)
    assert (found.index, found.entry_hash, found.clipping_norm) == (3, "ab", kept)


@pytest.mark.parametrize("kept_bytes", [0, 1, 40, 300])
def test_a_checkpoint_that_is_torn_is_refused_as_damaged(tmp_path, kept_bytes):
    state = OptimizerState.start(np.zeros(2, np.float32))
    write_checkpoint(
        tmp_path, Checkpoint(state=state, index=3, entry_hash="ab", clipping_norm=None)
    )
    whole = (tmp_path / CHECKPOINT_FILE).read_bytes()
    (tmp_path / CHECKPOINT_FILE).write_bytes(whole[:kept_bytes])
    with pytest.raises(StreamRefusedError, match="is damaged"):
        read_checkpoint(tmp_path)
