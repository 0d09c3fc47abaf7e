"""Seven planted defects of noise, sum and claim, each a small substitution of a real part."""

from dataclasses import fields

import numpy as np
import pytest

from privacy import IndependentGaussian, OperatingSystemNoise, UpdateGrid, clip_update
from privacy.audit.parts import AggregationParts
from privacy.audit.planted import DEFECTS, RestoredNoise, ScaledNoise
from privacy.policy import RecordPolicy, StreamPolicy, policy_for

GRID = UpdateGrid(clipping_norm=0.5)
POLICY = StreamPolicy(
    stream="s",
    num_rounds=24,
    cohort_size=10,
    privacy=policy_for(
        epsilon=10.0, delta=1e-5, max_participations=4, clipping_norm=0.5, min_separation=3
    ),
    record=RecordPolicy(
        noise_multiplier=0.0, max_grad_norm=1.0, sampling_rate=1.0, steps=1, least_rows=1
    ),
)


def real_noise(policy=POLICY):
    return IndependentGaussian(
        OperatingSystemNoise(),
        noise_multiplier=policy.privacy.noise_multiplier,
        clipping_norm=policy.privacy.clipping_norm,
    )


class Stream:
    """A stream at work, of ten devices of which five answer."""

    def __init__(self, total, noise):
        self.total, self.noise = total, noise

    def release(self):
        return (GRID.restore(self.total) + self.noise.noise(0, len(self.total))) / 10


class Ones:
    """Noise that is known."""

    def noise(self, _index, size):
        return np.ones(size)


def mean(stream, *, num_invited, num_replied):
    return stream.release()


REAL = AggregationParts(
    clip=clip_update,
    weigh=lambda _rows: 1,
    open_noise=real_noise,
    release=mean,
    counted=lambda _home: None,
    claim=lambda policy: 2.0,
    draw_nonce=lambda: "a nonce",
)
REPLACED = {
    "half the noise": "open_noise",
    "no clipping": "clip",
    "data-dependent weights": "weigh",
    "dropout without compensation": "release",
    "reused noise": "open_noise",
    "folder put back": "draw_nonce",
    "fixed schedule claimed as Poisson": "claim",
}


def test_there_are_seven_defects():
    assert list(DEFECTS) == list(REPLACED)


@pytest.mark.parametrize("name", DEFECTS)
def test_defect_replaces_one_part_and_leaves_the_others(name):
    broken = DEFECTS[name](REAL)

    changed = [
        field.name
        for field in fields(REAL)
        if getattr(broken, field.name) is not getattr(REAL, field.name)
    ]
    # A folder that is put back is no defect of a part; it shows the one of the nonce.
    assert [part for part in changed if part != "is_put_back"] == [REPLACED[name]]


def test_division_by_who_answered_leaves_the_noise_too_small():
    facts = {"num_invited": 10, "num_replied": 5}
    release = DEFECTS["dropout without compensation"](REAL).release
    silent, one = np.zeros(3, np.int64), GRID.quantise(np.array([0.5, 0.0, 0.0]))

    broken = release(Stream(silent, Ones()), **facts)

    assert broken == pytest.approx(np.ones(3) / 10)
    moved = release(Stream(one, Ones()), **facts) - broken
    assert moved[0] == pytest.approx(0.5 / 5)


def test_weight_follows_the_rows_and_no_update_is_clipped():
    assert DEFECTS["data-dependent weights"](REAL).weigh(365) == 3
    long = np.array([3.0, 4.0])
    assert DEFECTS["no clipping"](REAL).clip(long, clipping_norm=1.0) is long


def test_claim_with_amplification_is_smaller_than_the_truth():
    truth = 2.0 / POLICY.privacy.noise_multiplier

    assert DEFECTS["fixed schedule claimed as Poisson"](REAL).claim(POLICY) < 0.7 * truth


def test_restored_noise_repeats_and_calls_itself_what_it_is_not():
    noise = RestoredNoise(real_noise(), every=2)

    first, second, third = (noise.noise(index, 8) for index in range(3))

    assert (third == first).all()
    assert (second != first).any()
    assert noise.entry_kind == "stream"
    assert noise.mechanism == "independent_gaussian"
    assert noise.noise_multiplier == POLICY.privacy.noise_multiplier


def test_scaled_noise_is_smaller_and_calls_itself_what_it_is_not():
    noise = ScaledNoise(real_noise(), factor=0.5)
    claimed = POLICY.privacy.noise_multiplier * 0.5

    drawn = noise.noise(0, 20_000).std()

    assert drawn == pytest.approx(claimed / 2, rel=0.05)
    assert (noise.entry_kind, noise.mechanism) == ("stream", "independent_gaussian")
    assert noise.noise_multiplier == POLICY.privacy.noise_multiplier
