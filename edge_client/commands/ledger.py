"""`ledger`: what this device has given to training, what it cost, what is left."""

from __future__ import annotations

import math
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import StoreError, StoreMissingError
from .answers import answer, config_of, open_store

if TYPE_CHECKING:
    import argparse

    from ..privacy.account import LedgerAccount
    from ..store.sqlite_file import StoreFile

NOT_SOUND = 5
A_RECEIPT_DIFFERS = 1


def add_ledger(ledger: argparse.ArgumentParser) -> None:
    """Add the arguments of `ledger`."""
    ledger.add_argument("--language", help="en or de; default the owner's")
    ledger.add_argument(
        "--policy-keys",
        type=Path,
        metavar="FILE",
        help="JSON file of public keys: check the signature of every receipt once more",
    )


def run_ledger(arguments: argparse.Namespace) -> int:
    """Verify and show it; nothing is changed, and no key is needed for the ledger itself."""
    from models.trusted_keys import read_trusted_keys

    from ..eligibility import SAT_OUT_FACT
    from ..privacy.account import account_of
    from ..privacy.owner_words import owner_lines
    from ..privacy.participation import REFUSAL_FACT
    from ..wording import DEFAULT_LANGUAGE, chosen_language

    path = config_of(arguments).store
    keys = None if arguments.policy_keys is None else read_trusted_keys(arguments.policy_keys)
    language, refusal, sat_out, is_store_open = DEFAULT_LANGUAGE, None, None, True
    try:
        with open_store(arguments) as store:
            language, refusal = store.language, store.fact(REFUSAL_FACT)
            sat_out = store.fact(SAT_OUT_FACT)
            account = account_of(path, store, policy_keys=keys)
    except StoreError as error:
        account, is_store_open = account_of(path, policy_keys=keys), False
        if isinstance(error, StoreMissingError) and account.state == "never_enrolled":
            raise
    if arguments.language is not None:
        language = chosen_language(arguments.language)
    data = ledger_json(account) | {
        "last_refusal": refusal,
        "last_sat_out": sat_out,
        "store_asked": is_store_open,
    }
    lines = owner_lines(
        account, language=language, refusal=refusal, sat_out=sat_out, is_store_open=is_store_open
    )
    answer(arguments, data, lines)
    if not account.is_sound:
        return NOT_SOUND
    return A_RECEIPT_DIFFERS if account.num_differing else 0


def ledger_json(account: LedgerAccount) -> dict[str, Any]:
    """Return an account as machines read it; an epsilon that is unbounded is null."""
    from privacy.statement import OF_DEVICE

    data = asdict(account)
    for step in (*data["steps"], *data["counts"]):
        if not math.isfinite(step["epsilon_after"]):
            step["epsilon_after"] = None
    return data | {
        "is_sound": account.is_sound,
        "participations": account.num_participations,
        "receipts_that_differ": account.num_differing,
        **OF_DEVICE.to_json(),
        "epsilon_server": None,
    }


def training_json(store: StoreFile) -> dict[str, Any]:
    """Return the budget of training in brief, as `status` shows it."""
    from privacy.statement import OF_DEVICE

    from ..eligibility import SAT_OUT_FACT
    from ..privacy.account import account_of
    from ..privacy.owner_words import budget_words
    from ..privacy.participation import REFUSAL_FACT

    account = account_of(store.path, store, is_brief=True)
    return {
        "ledger": account.state,
        "what": account.problem,
        "erased": account.is_erased,
        "participations": account.num_participations,
        "max_participations": account.max_participations,
        "participations_left": account.participations_left,
        "epsilon": account.epsilon,
        "epsilon_limit": account.epsilon_limit,
        "delta": account.delta,
        **OF_DEVICE.to_json(),
        "words": budget_words(account),
        "last_refusal": store.fact(REFUSAL_FACT),
        "last_sat_out": store.fact(SAT_OUT_FACT),
    }
