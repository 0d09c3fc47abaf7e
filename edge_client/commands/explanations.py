"""`predict --explain`: the report with its reasons, for the owner, for support, for compliance."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from models.bundle import canonical_json

from ..client import EdgeClient
from ..errors import InputError, InputMissingError, UsageError
from ..explanations.audiences import Audience, owner_sentences, support_figures, support_rows
from ..explanations.audit_record import audit_record, differences, log_factor_of, parse_record
from ..explanations.evidence import gather_evidence
from ..notices import own_fields, reason_sentences
from ..wording import chosen_language, load_wording
from .answers import answer, config_of, now_of
from .prediction import report_json, report_lines

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterator

    from ..explanations.evidence import Evidence
    from ..wording import Wording

NOT_CONFIRMED = 1
MAX_RECORD_BYTES = 1 << 20
_LABELS = {"confidence": "how sure", "change": "what if", "simpler_rule": "in short"}


def explain(arguments: argparse.Namespace, audience: Audience) -> int:
    """Predict once, and say why to one audience."""
    if arguments.language is not None:
        try:
            chosen_language(arguments.language)
        except ValueError as error:
            remedy = "or leave it out for the owner's"
            raise UsageError("--language", str(error), remedy) from None
    check = getattr(arguments, "check", None)
    kept = None if check is None else _read_record(check)
    moment = now_of(arguments) if kept is None else datetime.fromisoformat(kept["as_of"])
    with EdgeClient.of_config(config_of(arguments)) as client:
        client.predict(moment, log_factor=None if kept is None else log_factor_of(kept))
        evidence = gather_evidence(client)
        language = arguments.language or client.store.language
    if audience is Audience.COMPLIANCE:
        record = audit_record(evidence)
        if kept is not None:
            return _confirm(arguments, kept, record)
        print(canonical_json(record).decode(), flush=True)
        return 0
    wording = load_wording(language)
    reasons = _reasons(evidence, wording)
    if getattr(arguments, "json", False):
        answer(arguments, _as_json(evidence, audience, reasons, wording), [])
    else:
        rows = _rows(evidence, audience, reasons, wording)
        answer(arguments, {}, report_lines(evidence.profile, evidence.report, rows, wording))
    return 0


def _reasons(evidence: Evidence, wording: Wording) -> tuple[str, ...]:
    fields = own_fields(
        report=evidence.report,
        figures=evidence.figures,
        profile=evidence.profile,
        wording=wording,
    )
    return reason_sentences(evidence.report.reasons, fields, wording)


def _as_json(
    evidence: Evidence, audience: Audience, reasons: tuple[str, ...], wording: Wording
) -> dict[str, Any]:
    from dataclasses import asdict

    data = report_json(evidence.report) | {
        "audience": audience.value,
        "sentences": reasons,
        "figures": asdict(evidence.figures),
        "explanation": owner_sentences(evidence, wording),
    }
    return data | support_figures(evidence) if audience is Audience.SUPPORT else data


def _rows(
    evidence: Evidence, audience: Audience, reasons: tuple[str, ...], wording: Wording
) -> Iterator[tuple[str, str]]:
    said = {"why": reasons} | {
        _LABELS[subject]: sentences
        for subject, sentences in owner_sentences(evidence, wording).items()
    }
    for label, sentences in said.items():
        for number, sentence in enumerate(sentences):
            yield (label if number == 0 else "", sentence)
    if audience is Audience.SUPPORT:
        yield from support_rows(evidence)


def _read_record(path: Path) -> dict[str, Any]:
    try:
        with path.open(encoding="utf-8") as file:
            record = parse_record(file.read(MAX_RECORD_BYTES))
        datetime.fromisoformat(record["as_of"]).astimezone()
        log_factor_of(record)
    except FileNotFoundError:
        raise InputMissingError(path, "there is no such file", "check --check") from None
    except OSError as error:
        raise InputError(path, f"cannot be read: {error.strerror}", "check --check") from error
    except (ValueError, KeyError, TypeError, RecursionError, OverflowError) as error:
        remedy = "give one that predict --audience compliance wrote"
        raise InputError(path, f"is no audit record ({error})", remedy) from error
    return record


def _confirm(arguments: argparse.Namespace, kept: dict[str, Any], again: dict[str, Any]) -> int:
    found = differences(kept, again)
    answer(
        arguments,
        {"confirmed": not found, "differences": list(found), "as_of": kept["as_of"]},
        [f"not confirmed, a re-run differs in {', '.join(found)}"]
        if found
        else [f"confirmed: a re-run as of {kept['as_of']} gives the same record"],
    )
    return NOT_CONFIRMED if found else 0
