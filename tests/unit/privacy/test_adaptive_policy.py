"""A clipping norm that adapts, in the policy: what it costs, what it binds, what it refuses."""

import json
from dataclasses import replace

import dp_accounting
import mpmath
import numpy as np
import pytest
from dp_accounting.pld import PLDAccountant

from privacy import CorrelatedRelease, Participation, StreamPolicy, policy_for
from privacy.accountant import device_epsilon, mu_of_participations, release_epsilon
from privacy.adaptive_clipping import BITS_SHARE
from privacy.budget import ParticipationHistory, Refusal, StepOffer, step_refusal
from privacy.planner import PlanRequest, plan_for
from privacy.streams import CorrelatedNoise
from tests.support.random_schedules import exact_epsilon
from tests.support.stream_policies import RECORD, stream_policy

CONSTANTS = {
    "epsilon": 2.0,
    "delta": 1e-8,
    "max_participations": 24,
    "clipping_norm": 0.3,
    "min_separation": 4,
    "update_share": 0.85,
    "bands": 4,
}
ADAPTIVE = policy_for(**CONSTANTS, target_quantile=0.5)
FIXED = policy_for(**CONSTANTS)
STREAM = replace(stream_policy(), privacy=ADAPTIVE)


def test_updates_and_bits_share_the_budget_that_a_fixed_norm_spends_alone():
    assert ADAPTIVE.step_mu_squared == pytest.approx(FIXED.step_mu_squared, rel=1e-8)
    assert ADAPTIVE.clip_noise_multiplier**-2 / ADAPTIVE.step_mu_squared == pytest.approx(
        BITS_SHARE
    )
    assert ADAPTIVE.noise_multiplier / FIXED.noise_multiplier == pytest.approx(1.0102, abs=1e-4)
    assert 24 * ADAPTIVE.step_mu_squared <= ADAPTIVE.mu_squared_limit * (1 + 1e-9)
    assert ADAPTIVE.epsilon_after(24) == pytest.approx(FIXED.epsilon_after(24), rel=1e-8)


def test_the_ledgers_epsilon_is_that_of_update_and_bit_together():
    sigma, of_bits = ADAPTIVE.noise_multiplier, ADAPTIVE.clip_noise_multiplier
    shared = {
        "stream": "s",
        "noise_multiplier": sigma,
        "clipping_norm": 1.0,
        "cohort_size": 100,
        "policy_digest": STREAM.digest,
        "clip_noise_multiplier": of_bits,
    }
    releases = [
        CorrelatedRelease(
            **shared, index=index, bands=4, min_separation=4, most_participations=index // 4 + 1
        )
        for index in range(24)
    ]
    debits = [Participation(**shared, index=4 * number) for number in range(6)]
    with mpmath.workdps(30):
        exact = exact_epsilon(6 * (mpmath.mpf(sigma) ** -2 + mpmath.mpf(of_bits) ** -2))
    for derived in (release_epsilon(releases, delta=1e-8), device_epsilon(debits, delta=1e-8)):
        assert exact <= derived <= exact * mpmath.mpf("1.001")
        accountant = PLDAccountant(value_discretization_interval=1e-3 * derived)
        accountant.compose(dp_accounting.GaussianDpEvent(sigma), 6)
        accountant.compose(dp_accounting.GaussianDpEvent(of_bits), 6)
        assert derived == pytest.approx(accountant.get_epsilon(1e-8), rel=1e-4)
    mu = mu_of_participations(
        noise_multiplier=sigma, participations=6, clip_noise_multiplier=of_bits
    )
    assert mu**2 == pytest.approx(6 * ADAPTIVE.step_mu_squared)


def test_policy_reads_back_as_it_was_signed_and_a_fixed_norm_leaves_no_trace():
    signed = STREAM.to_bytes()
    assert StreamPolicy.from_json(json.loads(signed)) == STREAM
    fixed = json.loads(stream_policy().to_bytes())
    assert "adaptive_clipping" not in fixed["privacy"]
    assert StreamPolicy.from_json(fixed).to_bytes() == stream_policy().to_bytes()
    null = {**fixed, "privacy": {**fixed["privacy"], "adaptive_clipping": None}}
    assert StreamPolicy.from_json(null).to_bytes() == stream_policy().to_bytes()


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"clipping_norm": 0.3}, "clipping_norm must be 1"),
        ({"noise_multiplier": FIXED.noise_multiplier}, "with the noise on bits"),
        (
            {"adaptive_clipping": replace(ADAPTIVE.adaptive_clipping, noise_multiplier=9.0)},
            "with the noise on bits",
        ),
    ],
)
def test_policy_that_forgets_what_bits_cost_or_scale_is_refused(changes, named):
    with pytest.raises(ValueError, match=named):
        replace(ADAPTIVE, **changes)


@pytest.mark.parametrize("wrong", [{"initial_norm": "1"}, {"initial_norm": 0.3, "more": 1}, 7])
def test_constants_that_are_none_are_refused(wrong):
    value = json.loads(STREAM.to_bytes())
    value["privacy"]["adaptive_clipping"] = wrong
    with pytest.raises(ValueError, match="not a policy of a stream"):
        StreamPolicy.from_json(value)


@pytest.mark.parametrize(
    ("changes", "refusal"),
    [
        ({}, None),
        ({"clipping_norm": 0.003}, None),
        ({"clipping_norm": 30.0}, None),
        ({"clipping_norm": 0.0029}, Refusal.NORM_OUT_OF_BOUNDS),
        ({"clipping_norm": 30.1}, Refusal.NORM_OUT_OF_BOUNDS),
        ({"clipping_norm": float("nan")}, Refusal.NORM_OUT_OF_BOUNDS),
        ({"has_norm_bit": False}, Refusal.TASK_DIFFERS),
    ],
)
def test_step_may_have_any_norm_within_the_bounds_and_must_ask_for_the_bit(changes, refusal):
    offer = StepOffer(
        stream="s",
        index=0,
        clipping_norm=0.3,
        cohort_size=STREAM.cohort_size,
        record=RECORD,
        has_norm_bit=True,
    )
    decided = step_refusal(STREAM, offer=replace(offer, **changes), history=ParticipationHistory())
    assert decided == refusal


def test_a_stream_of_one_norm_refuses_to_send_bits():
    fixed = stream_policy()
    offer = StepOffer(
        stream="s",
        index=0,
        clipping_norm=0.3,
        cohort_size=fixed.cohort_size,
        record=RECORD,
        has_norm_bit=True,
    )
    assert step_refusal(fixed, offer=offer, history=ParticipationHistory()) is Refusal.TASK_DIFFERS


def test_budget_counts_the_bits_of_every_step():
    offer = StepOffer(
        stream="s",
        index=40,
        clipping_norm=0.3,
        cohort_size=STREAM.cohort_size,
        record=RECORD,
        has_norm_bit=True,
    )
    of_update, of_bit = ADAPTIVE.noise_multiplier**-2, ADAPTIVE.clip_noise_multiplier**-2
    for left, refusal in (
        (of_update + of_bit, None),
        (of_update + of_bit / 2, Refusal.BUDGET_SPENT),
    ):
        spent = ParticipationHistory(mu_squared=ADAPTIVE.mu_squared_limit - left)
        assert step_refusal(STREAM, offer=offer, history=spent) is refusal


@pytest.mark.slow
def test_bits_get_noise_of_their_own_step_and_weights_that_of_the_stream():
    policy = replace(STREAM, num_rounds=3_000)
    noise = CorrelatedNoise(bytes(32), policy)
    drawn = []
    for index in range(3_000):
        noise.bind(index, index.to_bytes(32, "big"))
        drawn.append(noise.noise(index, 3))
    bits, weights = np.array(drawn)[:, 2], np.array(drawn)[:, 0]
    assert bits.std() == pytest.approx(ADAPTIVE.clip_noise_multiplier, rel=0.05)

    def lag_one(values):
        return float(np.corrcoef(values[:-1], values[1:])[0, 1])

    assert abs(lag_one(bits)) < 0.08
    assert lag_one(weights) < -0.2


def test_noise_on_bits_belongs_to_the_committed_sum():
    def of(digest):
        noise = CorrelatedNoise(bytes(32), STREAM)
        noise.bind(0, digest)
        return noise.noise(0, 3)[2]

    assert of(bytes(32)) == of(bytes(32))
    assert of(bytes(32)) != of(b"\1" * 32)


def test_plan_gives_the_bits_their_share_and_keeps_the_schedule():
    asked = PlanRequest(
        devices=10_000,
        epsilon=2.0,
        delta=1e-8,
        years=2.0,
        weights=1_091,
        clipping_norm=0.3,
        record=RECORD,
    )
    fixed, adaptive = plan_for(asked), plan_for(replace(asked, target_quantile=0.7))
    assert adaptive.schedule.cohort_size == fixed.schedule.cohort_size
    assert adaptive.schedule.participations == fixed.schedule.participations
    assert adaptive.epsilon == pytest.approx(fixed.epsilon, rel=1e-6)
    privacy = adaptive.policy(stream="s").privacy
    assert privacy.noise_multiplier == pytest.approx(adaptive.schedule.noise_multiplier)
    assert (privacy.first_norm, privacy.target_quantile) == (0.3, 0.7)
    taken = adaptive.schedule.participations
    assert adaptive.updates_mu_squared(taken) == pytest.approx(taken * privacy.step_mu_squared)
