"""`check`, `seal`: whether the store is sound, and under which key it is."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from .answers import answer, config_of, moment_flag, now_of, open_store

if TYPE_CHECKING:
    import argparse

DAMAGED = 1


def add_check(check: argparse.ArgumentParser) -> None:
    """Add the arguments of `check`."""
    check.add_argument(
        "--repair", action="store_true", help="set a damaged store aside, and begin anew"
    )
    check.add_argument("--now", type=moment_flag, metavar="TIME", help="the device's time")


def add_seal(seal: argparse.ArgumentParser) -> None:
    """Add the arguments of `seal`."""
    seal.add_argument(
        "--new-key",
        type=Path,
        required=True,
        metavar="FILE",
        help="file of the key, 32 raw bytes or 64 hexadecimal digits; then give it as --store-key",
    )


def run_check(arguments: argparse.Namespace) -> int:
    """Look through the store, and repair it where that was asked for."""
    from ..errors import StoreDamagedError
    from ..model_store import ModelStore
    from ..store.quarantine import quarantined
    from ..store.recovery import open_or_recover, recoveries

    config = config_of(arguments)
    if not arguments.repair:
        try:
            with open_store(arguments) as store:
                store.check()
                times, _ = recoveries(store)
        except StoreDamagedError as damage:
            answer(arguments, {"sound": False, "damage": str(damage)}, [str(damage)])
            return DAMAGED
        aside = [str(file) for file in quarantined(config.store)]
        answer(
            arguments,
            {"sound": True, "recoveries": times, "set_aside": aside},
            [
                f"the store is sound; begun anew {_times(times)}",
                *(f"set aside: {f}" for f in aside),
            ],
        )
        return 0
    store, recovery = open_or_recover(config.store, now_of(arguments), config.key_source())
    with store:
        times, _ = recoveries(store)
    data: dict[str, object] = {"sound": True, "recoveries": times, "recovered": None}
    lines = ["the store is sound; nothing was changed"]
    if recovery is not None:
        kept = ", ".join(recovery.consents_kept) or "none"
        data["recovered"] = {
            "damage": recovery.damage,
            "set_aside": recovery.set_aside and str(recovery.set_aside),
            "consents_kept": list(recovery.consents_kept),
        }
        lines = [
            f"{config.store}: {recovery.damage}; begun anew, {_times(times)} so far",
            "there was no file to set aside"
            if recovery.set_aside is None
            else f"set aside: {recovery.set_aside}",
            f"consents that were readable intact, and hold: {kept}",
        ]
    wrong = ModelStore.beside(config.store).mend_record(now_of(arguments))
    data["models"] = wrong
    if wrong is not None:
        lines.append(f"the record of installed models is written anew: {wrong}")
    answer(arguments, data, lines)
    return 0


def _times(count: int) -> str:
    return "once" if count == 1 else f"{count} times"


def run_seal(arguments: argparse.Namespace) -> int:
    """Write the store anew under a key."""
    from ..store.rewrite import rewrite_store
    from ..store.row_cipher import key_from_file

    config = config_of(arguments)
    new_key = key_from_file(arguments.new_key)
    rewrite_store(config.store, key=config.key_source(), new_key=new_key)
    answer(
        arguments,
        {"store": str(config.store), "sealed": True},
        [
            f"sealed {config.store}",
            f"from now on give --store-key {arguments.new_key}; without it the store is lost",
        ],
    )
    return 0
