"""A release leaves after an audit of its own stream alone, and not where its claim is refuted."""

from dataclasses import replace

import numpy as np
import pytest

import server.audits.privacy_audit
import server.audits.release_audit
from privacy import CountChannel, OperatingSystemNoise, next_entry
from privacy.audit.release_gate import (
    AuditRefusal,
    AuditRefusedError,
    audit_refusal,
)
from server.audits.canary_audit import audited_policy
from server.audits.canary_streams import (
    honest_parts,
)
from server.audits.planted_homes import PLANTED
from server.audits.privacy_audit import (
    production_policy,
)
from server.audits.release_audit import audit_policy, audit_release
from server.engine.server_optimizer import OptimizerState
from server.privacy_home import privacy_ledger
from server.privacy_home.privacy_errors import StreamRefusedError
from server.streams import stream_state
from server.streams.stream_files import read_checkpoint
from server.streams.stream_state import begin_stream
from server.streams.stream_terms import OperatingSystemKeys, StreamTerms
from tests.support.audited_streams import NOW, ledger_of, unnoised


def test_gate_lets_the_honest_aggregation_pass_and_no_other_policy():
    policy = production_policy()
    audit = audit_policy(policy, canaries=2_000)
    claimed = np.sqrt(24) / policy.privacy.noise_multiplier
    other = replace(
        policy, channels=(CountChannel(name="metrics", noise_multiplier=99.0, max_answers=1),)
    )

    assert audit.participations == 24
    assert audit_refusal(audit, claimed_mu=claimed, policy_digest=policy.digest) is None
    assert (
        audit_refusal(audit, claimed_mu=claimed, policy_digest=other.digest)
        is AuditRefusal.OTHER_POLICY
    )


def test_gate_refuses_a_claim_that_the_audit_refutes():
    policy = audited_policy(4.0, cohort_size=10)

    audit = audit_policy(policy, canaries=4_000)

    refusal = audit_refusal(audit, claimed_mu=2.0, policy_digest=policy.digest)
    assert refusal is AuditRefusal.EXCEEDS_CLAIM
    assert audit_policy(policy, participations=1, canaries=4_000).lower_bound <= 2.0


def test_release_is_audited_as_far_as_its_stream_went():
    policy = audited_policy(2.0, cohort_size=10)

    audit = audit_release(policy, ledger_of(policy, steps=5), canaries=4_000)

    assert audit.participations == 2
    assert 0.6 * np.sqrt(2) < audit.lower_bound < np.sqrt(2)
    assert audit.policy_digest == policy.digest


def test_release_under_a_ledger_that_claims_too_little_is_refused():
    policy = audited_policy(2.0, cohort_size=10)
    honest = ledger_of(policy, steps=10)
    softened = []
    for entry in honest:
        event = replace(entry.event, noise_multiplier=3 * entry.event.noise_multiplier)
        last = softened[-1] if softened else None
        softened.append(next_entry(last, event, kind="stream", at=NOW))

    with pytest.raises(AuditRefusedError) as refused:
        audit_release(policy, softened, canaries=4_000)

    assert refused.value.reason is AuditRefusal.EXCEEDS_CLAIM
    assert refused.value.lower_bound > refused.value.claimed_mu


@pytest.mark.parametrize("steps", [0, 3])
def test_release_whose_ledger_does_not_name_the_policy_is_refused(steps):
    policy = audited_policy(2.0, cohort_size=10)

    with pytest.raises(AuditRefusedError) as refused:
        audit_release(policy, ledger_of(policy, steps=steps, digest="ab" * 32))

    assert refused.value.reason is AuditRefusal.NOT_AUDITED


def test_broken_aggregation_releases_nothing(monkeypatch):
    broken = PLANTED["reused noise"](honest_parts())
    monkeypatch.setattr(server.audits.release_audit, "honest_parts", lambda: broken)
    policy = audited_policy(2.0, cohort_size=10)

    with pytest.raises(AuditRefusedError) as refused:
        audit_release(policy, ledger_of(policy, steps=12), canaries=2_000)

    assert refused.value.reason is AuditRefusal.NOISE_REPEATS


def test_stream_whose_release_adds_no_noise_keeps_no_weights(tmp_path, monkeypatch):
    monkeypatch.setattr(stream_state.StreamState, "release", unnoised)
    policy = audited_policy(2.0, cohort_size=2)
    start = OptimizerState.start(np.zeros(100))
    stream = begin_stream(
        tmp_path,
        privacy_ledger.open_home(tmp_path / "home"),
        StreamTerms.under(policy),
        start=start,
        keys=OperatingSystemKeys(),
        source=OperatingSystemNoise(),
    )
    stream.invite(device_ids=["a", "b"], choose=lambda _counts: [0, 1])
    stream.commit(np.full(100, 10**8, np.int64))
    stream.charge(NOW)

    with pytest.raises(StreamRefusedError, match="less noise"):
        stream.checkpoint(start, released=stream.release())

    assert read_checkpoint(tmp_path).index == -1
    stream.close()
