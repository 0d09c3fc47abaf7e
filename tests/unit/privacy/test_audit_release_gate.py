"""The gate before a release, and what an audit's checks hold."""

import json
import math
from dataclasses import replace

import pytest

from privacy.audit.findings import AuditCheck, Held
from privacy.audit.release_gate import (
    AuditRefusal,
    AuditRefusedError,
    MechanismAudit,
    audit_refusal,
    require_audited,
)

POLICY = "ab" * 32
GOOD = MechanismAudit(
    policy_digest=POLICY,
    participations=24,
    lower_bound=0.2,
    alpha=1e-3,
    canaries=10_000,
    correlation=0.09,
    correlation_bound=0.11,
    noise_ratio=1.0,
    noise_ratio_bound=0.998,
)


def refusal(audit, *, claimed_mu=0.3475):
    return audit_refusal(audit, claimed_mu=claimed_mu, policy_digest=POLICY)


def test_model_whose_audit_stays_below_its_claim_may_leave():
    assert refusal(GOOD) is None
    assert refusal(replace(GOOD, lower_bound=0.3475)) is None
    require_audited(GOOD, claimed_mu=0.3475, policy_digest=POLICY)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"lower_bound": 0.3476}, AuditRefusal.EXCEEDS_CLAIM),
        ({"lower_bound": math.nan}, AuditRefusal.EXCEEDS_CLAIM),
        ({"lower_bound": math.inf}, AuditRefusal.EXCEEDS_CLAIM),
        ({"correlation": 0.2}, AuditRefusal.NOISE_REPEATS),
        ({"correlation": math.nan}, AuditRefusal.NOISE_REPEATS),
        ({"noise_ratio": 0.99}, AuditRefusal.NOISE_TOO_SMALL),
        ({"policy_digest": "cd" * 32}, AuditRefusal.OTHER_POLICY),
    ],
)
def test_model_whose_audit_shows_more_than_it_claims_does_not_leave(change, reason):
    assert refusal(replace(GOOD, **change)) is reason


def test_model_that_was_not_audited_does_not_leave():
    assert refusal(None) is AuditRefusal.NOT_AUDITED
    with pytest.raises(AuditRefusedError, match="not_audited") as refused:
        require_audited(None, claimed_mu=0.3, policy_digest=POLICY)

    assert refused.value.lower_bound is None


def test_refusal_says_what_was_claimed_and_what_was_shown():
    with pytest.raises(AuditRefusedError, match=r"claimed 0\.1, shown 0\.2") as refused:
        require_audited(GOOD, claimed_mu=0.1, policy_digest=POLICY)

    assert refused.value.reason is AuditRefusal.EXCEEDS_CLAIM
    assert refused.value.exit_code == 5


def test_audit_is_read_as_it_was_written_and_later_fields_are_ignored():
    written = json.loads(json.dumps(GOOD.to_json())) | {"added_later": 1}

    assert MechanismAudit.from_json(written) == GOOD


def test_audit_that_lacks_a_figure_is_refused():
    with pytest.raises(ValueError, match="audit lacks alpha, correlation_bound"):
        MechanismAudit.from_json(
            {k: v for k, v in GOOD.to_json().items() if k not in {"alpha", "correlation_bound"}}
        )


@pytest.mark.parametrize(
    ("value", "held", "ok"),
    [
        (1.0, Held.AT_MOST, True),
        (1.1, Held.AT_MOST, False),
        (1.0, Held.AT_LEAST, True),
        (0.9, Held.AT_LEAST, False),
        (math.nan, Held.AT_MOST, False),
        (math.nan, Held.AT_LEAST, False),
    ],
)
def test_check_holds_on_its_side_of_the_bound_and_never_for_nan(value, held, ok):
    check = AuditCheck(name="n", value=value, bound=1.0, held=held, note="")

    assert check.ok is ok
