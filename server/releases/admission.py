"""What may enter the registry, and what of it may be proposed: ledger entry, audit, card, gate."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from models.bundle import load_bundle
from models.training.export_onnx import read_parameters

from ..audits.release_audit import audit_run, audited_policy_of
from ..engine.proposal import PROPOSAL_FILE, read_proposal
from ..errors import RegistryError
from ..privacy_home.ledger_report import read_words
from ..privacy_home.privacy_ledger import read_home
from ..registry import LedgerKind, PaidBy, RegisteredModel, admit
from ..streams.release_witness import read_witness, weights_digest
from .release_errors import ReleaseMissingError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime
    from pathlib import Path

    from models.bundle import Bundle

RUN_BUNDLE: Final = "bundle.zip"
CARD_PARTS: Final = ("title", "trained_on", "metrics", "privacy", "limits")
FIGURES: Final = ("epsilon_release", "epsilon_server", "record_epsilon")


@dataclass(frozen=True, slots=True, kw_only=True)
class Payment:
    """Where it is written what a model cost.

    Attributes:
        run: folder of the run that made it; None for a model of public data.
        home: privacy home with its ledger entry; None: the run's own.
    """

    run: Path | None = None
    home: Path | None = None

    @property
    def ledger(self) -> Path | None:
        """The folder of the ledger, None where none is at hand."""
        return self.home or self.run


def admitted(bundle: Bundle, payment: Payment, *, now: datetime) -> RegisteredModel:
    """Return a bundle as a candidate, or refuse it.

    Args:
        bundle: that shall enter.
        payment: where it is written what it cost.
        now: aware time.

    Raises:
        RegistryError: no card, no ledger entry, or none that pays for it; the quality gate did not
            pass this very bundle of a run.
        AuditRefusedError: the audit finds more than the ledger claims.
        PrivacyHomeError: the ledger cannot be read, or does not verify.
        RunFolderError: the run's folder holds nothing that could be audited.
    """
    require_card(bundle)
    is_paid = (bundle.manifest.get("ledger_entry") or {}).get("kind") == LedgerKind.STREAM
    paid_by = None
    if is_paid:
        if payment.run is None:
            remedy = "propose the folder of the run that made it"
            raise RegistryError(bundle.version, "has no audit: its run is not named", remedy)
        require_passed(payment.run, bundle)
        audit_run(payment.run, home=payment.home)
        paid_by = PaidBy(
            policy=audited_policy_of(payment.run),
            witness=read_witness(payment.run),
            weights_digest=weights_digest(read_parameters(bundle.model_bytes).flat()),
            proposed_digest=bundle.digest,
        )
    ledger = None if payment.ledger is None else read_home(payment.ledger)
    words = None
    if payment.ledger is not None and ledger is not None:
        words = read_words(payment.ledger, ledger)
    return admit(
        version=bundle.version,
        digest=bundle.digest,
        ledger_entry=bundle.manifest.get("ledger_entry"),
        now=now,
        ledger=ledger,
        claim=bundle.card["privacy"]["epsilon_release"],
        paid_by=paid_by,
        words=words,
    )


def require_card(bundle: Bundle) -> None:
    """Refuse a bundle whose card does not say what it is for, how good and how private it is.

    Raises:
        RegistryError: which part is missing.
    """
    remedy = "build the bundle again with its model card"
    try:
        card: Mapping[str, Any] = bundle.card
        missing = [part for part in CARD_PARTS if not card.get(part)]
        missing += [name for name in FIGURES if name not in (card.get("privacy") or {})]
    except (ValueError, TypeError, AttributeError) as error:
        raise RegistryError(bundle.version, f"has no model card ({error})", remedy) from error
    if missing:
        what = f"has no model card: {', '.join(missing)} is missing"
        raise RegistryError(bundle.version, what, remedy)


def require_passed(run: Path, bundle: Bundle) -> None:
    """Refuse a run's candidate that the quality gate did not pass.

    Args:
        run: folder of the run that made it.
        bundle: signed or not: the digest is the same.

    Raises:
        RegistryError: the gate has not judged this very bundle, or did not pass it.
    """
    decision = read_proposal(run, bundle)
    if decision is None:
        remedy = f"judge it first: fedcell rounds judge {run}"
        raise RegistryError(bundle.version, f"has no {PROPOSAL_FILE} of its own", remedy)
    if decision.get("passed") is not True:
        remedy = f"read {run / PROPOSAL_FILE}"
        raise RegistryError(bundle.version, "was not passed by the quality gate", remedy)


def require_held_against(run: Path, bundle: Bundle, *, in_use: Bundle) -> None:
    """Refuse a run's candidate that was judged beside another model than devices have now.

    A decision that does not say beside which model it was taken is none.

    Args:
        run: folder of the run that made it.
        bundle: the candidate.
        in_use: what devices have, without signature and release number.

    Raises:
        RegistryError: the gate has to judge it again.
    """
    told = (read_proposal(run, bundle) or {}).get("current")
    current = told if isinstance(told, dict) else {}
    if current.get("digest") != in_use.digest:
        beside = current.get("version", "no model that it names")
        what = f"was judged beside {beside}, and devices have {in_use.version}"
        remedy = f"judge it again: fedcell rounds judge {run}"
        raise RegistryError(bundle.version, what, remedy)


def candidate_of(source: Path, payment: Payment) -> tuple[Bundle, Payment]:
    """Return what an operator proposes: a run's candidate that the gate passed, or a bundle.

    Args:
        source: folder of a run, or a bundle.
        payment: as far as the operator names it.

    Raises:
        ReleaseMissingError: nothing is there.
        RegistryError: the gate did not pass the run's candidate, or has not judged it.
    """
    if not source.exists():
        raise ReleaseMissingError(source, "there is nothing", "name a run's folder or a bundle")
    is_run = source.is_dir() and (source / RUN_BUNDLE).exists()
    bundle = load_bundle(source / RUN_BUNDLE if is_run else source, allow_unsigned=True)
    if not is_run:
        return bundle, payment
    require_passed(source, bundle)
    return bundle, Payment(run=source, home=payment.home)
