"""The audit of streams whose clipping norm adapts: no alarm on the honest, none missed on less."""

from dataclasses import replace

import numpy as np
import pytest

from privacy import UpdateGrid
from privacy.audit.planted import half_the_noise
from server.audits.canary_audit import audit_stream, audited_policy
from server.audits.canary_streams import honest_parts, steps_by_device
from server.engine.aggregation import mean_update

POLICY = audited_policy(2.0, cohort_size=40, target_quantile=0.5)


def test_canaries_of_the_honest_mechanism_stay_below_the_claim_and_near_it():
    finding = audit_stream(POLICY, honest_parts(), canaries=4_000)
    assert 0.5 < finding.excess <= 1.0
    assert finding.reuse < 1.0
    assert finding.noise_ratio == pytest.approx(1.0, abs=0.02)
    assert (finding.beyond_rules, finding.broken_off) == (0, "")
    assert finding.claim == pytest.approx(2.0, rel=1e-6)


def test_half_the_noise_under_a_moving_norm_is_caught():
    finding = audit_stream(POLICY, half_the_noise(honest_parts()), canaries=4_000)
    assert finding.excess > 1.0


def test_a_norm_that_is_applied_to_the_sum_and_not_to_the_noise_is_caught():
    def release(stream, *, num_invited, num_replied):
        """What is left of σ·w_t where only Σ u_t is multiplied by a norm, here one of 4."""
        committed = stream._committed()
        mean = mean_update(
            4 * committed.total,
            noise=stream.noise.noise(stream.next_index, stream.size),
            num_invited=num_invited,
            grid=UpdateGrid(clipping_norm=1.0),
        )
        return stream.norm.of_update(mean, noise_only=False)

    broken = replace(honest_parts(), release=release)
    finding = audit_stream(POLICY, broken, canaries=4_000)
    assert finding.excess > 1.0


def test_device_admits_by_itself_as_many_steps_as_the_policy_pays_for():
    taken = steps_by_device(POLICY)
    assert len(taken) == POLICY.privacy.max_participations
    assert np.diff(taken).min() >= POLICY.privacy.min_separation
