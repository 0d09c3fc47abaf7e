"""What an owner reads of the ledger: whole sentences first, then each participation in a line.

The texts are data, `ledger.<language>.json` beside the other wordings.
"""

from __future__ import annotations

import json
import math
from typing import TYPE_CHECKING, Any

from ..wording import DEFAULT_LANGUAGE, FOLDER, LANGUAGES
from .account import NEVER_ENROLLED
from .receipts import ReceiptState

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from .account import LedgerAccount, StepAccount


def ledger_texts(language: str) -> dict[str, Any]:
    """Return the texts in a language, in English where there are none.

    Args:
        language: a code such as `de` or `de-AT`; the part before the hyphen decides.
    """
    short = language.partition("-")[0]
    known = short if short in LANGUAGES else DEFAULT_LANGUAGE
    texts: dict[str, Any] = json.loads(
        (FOLDER / f"ledger.{known}.json").read_text(encoding="utf-8")
    )
    return texts


def owner_lines(
    account: LedgerAccount,
    *,
    language: str,
    refusal: Mapping[str, Any] | None = None,
    sat_out: Mapping[str, Any] | None = None,
    is_store_open: bool = True,
) -> list[str]:
    """Return an account as its owner reads it.

    Args:
        account: of the device.
        language: of the owner.
        refusal: the last step that policy or ledger refused, as the store keeps it.
        sat_out: the last step, where the device sat it out, likewise.
        is_store_open: whether the store was asked, too.
    """
    texts = ledger_texts(language)
    lines = [texts["title"], ""]
    if account.is_erased:
        lines.append(texts["erased"])
    if not account.is_sound:
        return [*lines, texts["broken"].format(problem=account.problem)]
    if account.state == NEVER_ENROLLED:
        return lines if account.is_erased else [*lines, texts["never_enrolled"]]
    if account.num_differing:
        lines.append(texts["differs"].format(differing=account.num_differing))
    lines += _spent(account, texts)
    whole = "sound" if is_store_open else "sound_without_store"
    lines.append(texts[whole].format(entries=account.num_entries))
    if refusal is not None:
        reason = texts["reasons"].get(refusal["reason"], refusal["reason"])
        at = str(refusal["at"])[:10]
        said = {"index": refusal["index"], "stream": refusal["stream"], "at": at, "reason": reason}
        lines.append(texts["last_refusal"].format(**said))
    if sat_out is not None:
        lines.append(sat_out_words(sat_out, texts))
    return lines + _tables(account, texts)


def sat_out_words(sat_out: Mapping[str, Any], texts: Mapping[str, Any]) -> str:
    """Return why the device sat a step out, in a sentence.

    Args:
        sat_out: as the store keeps it.
        texts: from `ledger_texts`.
    """
    known = texts["sat_out_reasons"]
    said = "; ".join(known.get(reason, reason) for reason in sat_out["reasons"])
    step = {name: sat_out[name] for name in ("index", "stream")}
    return str(texts["last_sat_out"].format(**step, at=str(sat_out["at"])[:10], reasons=said))


def budget_words(account: LedgerAccount, *, language: str = DEFAULT_LANGUAGE) -> str:
    """Return an account in one line."""
    texts = ledger_texts(language)
    if not account.is_sound:
        return f"{account.state}: {account.problem}"
    if account.is_erased or account.state == NEVER_ENROLLED:
        return str(texts["erased" if account.is_erased else NEVER_ENROLLED])
    said = [_taken_part(account, texts)]
    if account.epsilon is not None:
        unit = texts["unit"].format(**texts["units"])
        said += [_epsilon_line(account, texts), unit, texts["see_ledger"]]
    return " ".join(said)


def _spent(account: LedgerAccount, texts: Mapping[str, Any]) -> list[str]:
    lines = [_taken_part(account, texts)]
    if account.counts:
        lines.append(texts["counts"].format(answers=len(account.counts)))
    if account.epsilon is None or account.delta is None:
        return lines
    factor, delta = _number(math.exp(account.epsilon), texts), _number(account.delta, texts)
    lines += [
        _epsilon_line(account, texts),
        texts["meaning"].format(factor=factor, delta=delta),
        texts["unit"].format(**texts["units"]),
        texts["assumptions"].format(assumptions="; ".join(texts["assumption_list"])),
        texts["server"],
    ]
    record = account.record
    if record.epsilon is not None:
        said = {"epsilon": _number(record.epsilon, texts), "delta": _number(record.delta, texts)}
        lines.append(texts["record"].format(**said, steps=record.steps))
    elif record.missing is not None:
        lines.append(texts["record_missing"].format(steps=record.steps, missing=record.missing))
    elif record.unprotected:
        lines.append(texts["record_none"].format(unprotected=record.unprotected))
    if account.steps:
        states = [step.receipt for step in account.steps]
        lines.append(
            texts["receipts"].format(
                matching=states.count(ReceiptState.MATCHES),
                missing=states.count(ReceiptState.NONE_CAME),
                differing=states.count(ReceiptState.DIFFERS),
            )
        )
    return lines


def _taken_part(account: LedgerAccount, texts: Mapping[str, Any]) -> str:
    if not account.num_participations:
        return str(texts["never"])
    kind = "retired" if account.participations_left == 0 else "taken_part"
    return str(
        texts[kind].format(
            taken=account.num_participations,
            most="?" if account.max_participations is None else account.max_participations,
            left="?" if account.participations_left is None else account.participations_left,
        )
    )


def _epsilon_line(account: LedgerAccount, texts: Mapping[str, Any]) -> str:
    return str(
        texts["epsilon"].format(
            epsilon=_number(account.epsilon, texts),
            limit=_number(account.epsilon_limit, texts),
            delta=_number(account.delta, texts),
        )
    )


def _tables(account: LedgerAccount, texts: Mapping[str, Any]) -> list[str]:
    steps = [
        (
            step.at[:16].replace("T", " "),
            step.stream,
            str(step.index),
            _number(step.mu_squared, texts),
            _number(step.epsilon_after, texts),
            _receipt(step, texts),
        )
        for step in account.steps
    ]
    counts = [
        (
            count.at[:16].replace("T", " "),
            count.channel,
            str(count.index),
            _number(count.mu_squared, texts),
            _number(count.epsilon_after, texts),
        )
        for count in account.counts
    ]
    lines: list[str] = []
    for heads, rows in ((texts["columns"], steps), (texts["count_columns"], counts)):
        if rows:
            lines += ["", *_columns([tuple(heads), *rows])]
    return lines


def _receipt(step: StepAccount, texts: Mapping[str, Any]) -> str:
    return str(texts["receipt_states"][step.receipt].format(differs=", ".join(step.differs)))


def _columns(rows: Sequence[tuple[str, ...]]) -> list[str]:
    widths = [max(len(row[place]) for row in rows) for place in range(len(rows[0]))]
    return [
        "  ".join(f"{cell:<{width}}" for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    ]


def _number(value: float | None, texts: Mapping[str, Any]) -> str:
    if value is None:
        return "?"
    return f"{value:.3g}".replace(".", texts["decimal"])
