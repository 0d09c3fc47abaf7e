"""The gate before a release: a model whose audit shows more than it claims does not leave."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from enum import StrEnum
from typing import Any

from ..errors import PrivacyError


class AuditRefusal(StrEnum):
    """Why a model does not leave."""

    NOT_AUDITED = "not_audited"
    OTHER_POLICY = "other_policy"
    EXCEEDS_CLAIM = "exceeds_claim"
    NOISE_REPEATS = "noise_repeats"
    NOISE_TOO_SMALL = "noise_too_small"
    NOT_WITNESSED = "not_witnessed"


class AuditRefusedError(PrivacyError):
    """An audit shows more than a model claims, or there is none; the model does not leave.

    Attributes:
        reason: Why.
        lower_bound: μ that the audit shows, or None where there is none.
        claimed_mu: μ that the model claims.
    """

    exit_code = 5

    def __init__(
        self, *, reason: AuditRefusal, lower_bound: float | None, claimed_mu: float
    ) -> None:
        """Keep the facts beside the message."""
        shown = "none" if lower_bound is None else f"{lower_bound:.4g}"
        super().__init__(
            f"audit refuses the release, {reason}: μ claimed {claimed_mu:.4g}, shown {shown}; "
            "run fedcell privacy audit, and release nothing before it passes"
        )
        self.reason = reason
        self.lower_bound = lower_bound
        self.claimed_mu = claimed_mu


@dataclass(frozen=True, slots=True, kw_only=True)
class MechanismAudit:
    """What an audit of the aggregation shows under the policy of a stream.

    Attributes:
        policy_digest: SHA-256 of the signed policy.
        participations: number of steps in which each canary took part.
        lower_bound: of μ, at confidence 1 − alpha.
        alpha: probability with which it may lie above the truth.
        canaries: number of trials.
        correlation: greatest |cosine| between the noise of two steps.
        correlation_bound: what independent noise stays below.
        noise_ratio: standard deviation of the noise over the claimed one.
        noise_ratio_bound: what the claimed noise stays above.
    """

    policy_digest: str
    participations: int
    lower_bound: float
    alpha: float
    canaries: int
    correlation: float
    correlation_bound: float
    noise_ratio: float
    noise_ratio_bound: float

    def to_json(self) -> dict[str, Any]:
        """Return the audit as a JSON object, to be kept beside the model."""
        return asdict(self)

    @staticmethod
    def from_json(value: Mapping[str, Any]) -> "MechanismAudit":
        """Read an audit; fields that this version does not know are ignored.

        Raises:
            ValueError: A field is missing.
        """
        names = [field.name for field in fields(MechanismAudit)]
        missing = [name for name in names if name not in value]
        if missing:
            raise ValueError(f"audit lacks {', '.join(missing)}")
        return MechanismAudit(**{name: value[name] for name in names})


def audit_refusal(
    audit: MechanismAudit | None, *, claimed_mu: float, policy_digest: str
) -> AuditRefusal | None:
    """Decide whether a model may leave.

    Args:
        audit: Of the aggregation that made it, under its policy; None where there was none.
        claimed_mu: What its ledger comes to (`privacy.accountant.mu_of_releases`).
        policy_digest: Of the policy that its ledger names.

    Returns:
        Why not, or None if it may. A figure that is not a number refuses.
    """
    if audit is None:
        return AuditRefusal.NOT_AUDITED
    if audit.policy_digest != policy_digest:
        return AuditRefusal.OTHER_POLICY
    if not audit.lower_bound <= claimed_mu:
        return AuditRefusal.EXCEEDS_CLAIM
    if not audit.correlation <= audit.correlation_bound:
        return AuditRefusal.NOISE_REPEATS
    if not audit.noise_ratio >= audit.noise_ratio_bound:
        return AuditRefusal.NOISE_TOO_SMALL
    return None


def require_audited(
    audit: MechanismAudit | None, *, claimed_mu: float, policy_digest: str
) -> MechanismAudit:
    """Return the audit of a model that may leave.

    Raises:
        AuditRefusedError: It may not; with what was claimed and what was shown.
    """
    reason = audit_refusal(audit, claimed_mu=claimed_mu, policy_digest=policy_digest)
    if audit is None or reason is not None:
        raise AuditRefusedError(
            reason=reason or AuditRefusal.NOT_AUDITED,
            lower_bound=None if audit is None else audit.lower_bound,
            claimed_mu=claimed_mu,
        )
    return audit
