"""The audit before a release: of the aggregation that made a model, under its policy.

What is compared with the lower bound is what the model's own ledger claims for its stream, as far
as the stream went. The audit is kept beside the model, so that it can be judged again.
"""

from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

from models.durable_file import write_durably
from privacy import CorrelatedRelease, StreamPolicy, events_of
from privacy.accountant import mu_of_releases, part_of_ledger
from privacy.audit.release_gate import (
    AuditRefusal,
    AuditRefusedError,
    MechanismAudit,
    require_audited,
)
from privacy.ledger import entries_of_stream

from ..privacy_home.privacy_ledger import read_home
from ..runs.folder import RunFolderError
from ..runs.run_files import REPORT_FILE
from ..streams.release_witness import read_witness
from .canary_audit import ALPHA, audit_stream
from .canary_streams import honest_parts

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from privacy import LedgerEntry

AUDIT_FILE: Final = "audit.json"
CANARIES: Final = 10_000


def audit_policy(
    policy: StreamPolicy,
    *,
    participations: int | None = None,
    num_rounds: int | None = None,
    canaries: int = CANARIES,
) -> MechanismAudit:
    """Audit the aggregation under the policy of a stream.

    Args:
        policy: as it was signed.
        participations: most steps to which a device was invited so far; k unless given.
        num_rounds: steps that were released so far; T unless given.
        canaries: number of trials.
    """
    taken = participations or policy.privacy.max_participations
    so_far = replace(
        policy,
        num_rounds=num_rounds or policy.num_rounds,
        privacy=replace(policy.privacy, max_participations=taken),
    )
    finding = audit_stream(so_far, honest_parts(), canaries=canaries)
    return MechanismAudit(
        policy_digest=policy.digest,
        participations=taken,
        lower_bound=finding.bound.mu,
        alpha=ALPHA,
        canaries=canaries,
        correlation=finding.correlation,
        correlation_bound=finding.correlation_bound,
        noise_ratio=finding.noise_ratio,
        noise_ratio_bound=finding.noise_ratio_bound,
    )


def audit_release(
    policy: StreamPolicy, entries: Sequence[LedgerEntry], *, canaries: int = CANARIES
) -> MechanismAudit:
    """Audit the aggregation as a model's stream ran, and refuse what exceeds the ledger's claim.

    Args:
        policy: of the model's stream, its signature checked.
        entries: of the ledger up to the one that the model's card quotes.
        canaries: number of trials.

    Returns:
        The audit, to be kept beside the model.

    Raises:
        AuditRefusedError: the lower bound exceeds the claim, the noise repeats or is too small, or
            the stream ran under another policy, or not at all.
    """
    steps = [
        event
        for event in events_of(entries)
        if isinstance(event, CorrelatedRelease) and event.stream == policy.stream
    ]
    claimed_mu = mu_of_releases(part_of_ledger(steps))
    audit = None
    taken = max((step.most_participations for step in steps), default=0)
    if taken and {step.policy_digest for step in steps} == {policy.digest}:
        audit = audit_policy(policy, participations=taken, num_rounds=len(steps), canaries=canaries)
    return require_audited(audit, claimed_mu=claimed_mu, policy_digest=policy.digest)


def audit_run(run: Path, *, home: Path | None = None, canaries: int = CANARIES) -> MechanismAudit:
    """Audit the aggregation for the release of a run's model, and keep the audit in its folder.

    Args:
        run: folder of the run.
        home: privacy home that the run was charged to; None where it is its own.
        canaries: number of trials.

    Returns:
        The audit.

    Raises:
        AuditRefusedError: the model may not leave: no step of it, or not each, was seen to carry
            its noise, or the audit shows more than is claimed. What was kept before stays.
        RunFolderError: the folder holds no run that could be released.
        PrivacyHomeError: the ledger cannot be read, or does not verify.
    """
    policy, reference = _policy_and_entry(run)
    entries = read_home(run if home is None else home)
    index = reference.get("index")
    paid = entries[: index + 1] if isinstance(index, int) and 0 <= index < len(entries) else ()
    if not paid or paid[-1].hash != reference.get("hash"):
        what = f"quotes ledger entry {index!r}, which the privacy home does not hold"
        raise RunFolderError(run, what, "name the home that it was charged to: --home DIR")
    _require_witnessed(run, policy, paid)
    audit = audit_release(policy, paid, canaries=canaries)
    kept = {**audit.to_json(), "ledger_entry": paid[-1].reference()}
    write_durably(run / AUDIT_FILE, f"{json.dumps(kept, indent=2)}\n".encode())
    return audit


def audited_policy_of(run: Path) -> StreamPolicy:
    """Return the policy under which a run's gate judges it.

    Raises:
        RunFolderError: the folder holds no run that could be released.
    """
    return _policy_and_entry(run)[0]


def _require_witnessed(run: Path, policy: StreamPolicy, paid: Sequence[LedgerEntry]) -> None:
    """Refuse a run of which a step was charged and not seen to carry its noise.

    Raises:
        AuditRefusedError: of that reason.
    """
    seen = read_witness(run)
    steps = entries_of_stream(paid, policy.stream)
    if not all(step.hash in seen for step in steps):
        raise AuditRefusedError(
            reason=AuditRefusal.NOT_WITNESSED,
            lower_bound=None,
            claimed_mu=mu_of_releases(step.event for step in steps),
        )


def _policy_and_entry(run: Path) -> tuple[StreamPolicy, dict[str, Any]]:
    """The policy of a run's stream and the last ledger entry that its report quotes."""
    try:
        told = json.loads((run / REPORT_FILE).read_bytes())["privacy"]
        policy, reference = told["policy"], told["ledger_head"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        what = f"{REPORT_FILE} does not say under which policy it ran ({error})"
        raise RunFolderError(run, what, "name the folder of a run of rounds") from error
    if policy is None or reference is None:
        what = "ran to compare with, or released nothing yet"
        raise RunFolderError(run, what, "audit a run of correlated noise")
    try:
        return StreamPolicy.from_json(policy), dict(reference)
    except (ValueError, TypeError) as error:
        what = f"{REPORT_FILE} holds no policy of a stream ({error})"
        raise RunFolderError(run, what, "keep the report as it was written") from error
