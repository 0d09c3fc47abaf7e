"""`init`, `record`, `export`, `erase`: the device's own store."""

from __future__ import annotations

import sys
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import InputError, InputMissingError, ReadingRefusedError, UsageError
from .answers import answer, config_of, moment, moment_flag, now_of, open_store

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterator, Mapping
    from datetime import datetime

    from models.telemetry import DeviceProfile, Reading

    from ..telemetry_store import TelemetryStore

PROFILE_TEXTS = {
    "device_id": "stable identifier, never personal data",
    "device_model": "product name",
    "chemistry": "cell chemistry, such as NMC111",
    "manufactured_at": "time or date of manufacture, ISO 8601",
    "region": "coarse region",
    "climate": "climate class",
    "criticality": "what hangs on it: low, medium or high",
}
PROFILE_NUMBERS = {
    "design_capacity_mah": "capacity when new, mAh",
    "end_of_life_capacity_mah": "capacity at which it is replaced, mAh",
}
# Named here too, because models.telemetry loads numpy; a test holds the two together.
MEASUREMENT_FLAGS = (
    ("full_charge_capacity_mah", "mAh"),
    ("charge_cycle_count", "full cycles since new"),
    ("charge_duration_min", "minutes of the last charge"),
    ("battery_temp_max_c", "degrees Celsius"),
    ("battery_temp_avg_c", "degrees Celsius"),
    ("unexpected_shutdown_count", "shutdowns since new"),
    ("usage_hours", "hours in the interval"),
    ("internal_resistance_mohm", "milliohm"),
)
EVERYTHING_REFUSED = 3
GOES_ON = "the device's privacy ledger goes on, and it never trains again"
OPTIONAL_IN_PROFILE = {"region", "climate", "criticality"}
REMEDIES = {
    "device_id": "give a name such as meter-0001",
    "manufactured_at": "give a past time as 2026-01-31 or 2026-01-31T08:00:00Z",
    "criticality": "give low, medium or high",
}


def add_init(init: argparse.ArgumentParser) -> None:
    """Add the arguments of `init`."""
    init.add_argument("--profile", type=Path, metavar="FILE", help="profile as JSON or TOML")
    for name, what in (PROFILE_TEXTS | PROFILE_NUMBERS).items():
        kind = float if name in PROFILE_NUMBERS else str
        init.add_argument("--" + name.replace("_", "-"), type=kind, metavar="X", help=what)
    init.add_argument("--language", default="en", help="in which the owner reads: en or de")
    init.add_argument("--quiet-hours", metavar="22-7", help="local hours without notices")
    init.add_argument("--zone", help="the owner's time zone, such as Europe/Berlin")
    init.add_argument(
        "--retention-days", type=int, default=730, metavar="N", help="days that readings are kept"
    )
    init.add_argument(
        "--max-store-bytes", type=int, metavar="N", help="size that the store stays below"
    )
    init.add_argument(
        "--device-id-from",
        choices=("machine-id", "hardware"),
        help="make the device id from what this hardware says of itself",
    )
    init.add_argument(
        "--first-boot", action="store_true", help="fine where the same was done before"
    )
    init.add_argument(
        "--identity", action="store_true", help="give a store that has no keys its own, no more"
    )
    init.add_argument(
        "--new-device", action="store_true", help="this is other hardware: begin afresh"
    )
    init.add_argument(
        "--old-store",
        choices=("aside", "erase"),
        default="aside",
        help="with --new-device: what is done with the store of before; default aside",
    )
    init.add_argument("--now", type=moment_flag, metavar="TIME", help="the device's time")


def add_record(record: argparse.ArgumentParser) -> None:
    """Add the arguments of `record`."""
    record.add_argument(
        "file",
        nargs="?",
        metavar="FILE",
        help="CSV or JSON lines; - reads one JSON object from standard input",
    )
    record.add_argument("--at", metavar="TIME", help="time of the reading; default now")
    for name, unit in MEASUREMENT_FLAGS:
        record.add_argument("--" + name.replace("_", "-"), metavar="X", help=unit)
    record.add_argument("--now", type=moment_flag, metavar="TIME", help="the device's time")


def add_export(export: argparse.ArgumentParser) -> None:
    """Add the arguments of `export`."""
    export.add_argument("--out", type=Path, metavar="FILE", help="default: standard output")


def add_erase(erase: argparse.ArgumentParser) -> None:
    """Add the arguments of `erase`."""
    erase.add_argument("--yes", action="store_true", help="really do it")
    erase.add_argument("--now", type=moment_flag, metavar="TIME", help="the device's time")


def run_init(arguments: argparse.Namespace) -> int:
    """Make the keys and the store of a new device, or say that they are there."""
    from ..provisioning.first_boot import boot_first, is_made_here, retire
    from ..store.device_facts import first_facts
    from ..store.erasure import tombstones
    from ..telemetry_store import TelemetryStore
    from .identity import derived_device_id, hardware_id_of, run_add_identity
    from .owner import quiet_hours_of

    config = config_of(arguments)
    if arguments.identity:
        return run_add_identity(arguments)
    profile = _wanted_profile(arguments, derived_device_id(arguments, config))
    quiet = None
    if arguments.quiet_hours is not None:
        quiet = quiet_hours_of(arguments.quiet_hours, arguments.zone)
    choices: dict[str, Any] = {
        "language": arguments.language,
        "quiet_hours": quiet,
        "retention_days": arguments.retention_days,
        "max_store_bytes": arguments.max_store_bytes,
    }
    # What cannot be is refused before keys are made for it.
    first_facts(profile, **choices)
    hardware_id = hardware_id_of(config)
    aside = None
    first_boot = bool(arguments.first_boot)
    if arguments.new_device and not is_made_here(
        config.store, hardware_id=hardware_id, may_exist=first_boot
    ):
        erase = arguments.old_store == "erase"
        aside = retire(config.store, device_id=profile.device_id, erase=erase)
    made = boot_first(
        config.store,
        profile,
        hardware_id=hardware_id,
        now=now_of(arguments),
        may_exist=first_boot,
        key=config.key_source(),
        make_store=lambda: TelemetryStore.create(
            config.store, profile=profile, key=config.key_source(), **choices
        ),
    )
    data = {"store": str(config.store), "device_id": profile.device_id, "made": made}
    lines = [f"the store of {profile.device_id} is there already: {config.store}"]
    if made:
        lines = [
            f"made the store of {profile.device_id}: {config.store}",
            "nothing leaves this device until its owner agrees: fedcell-device consent",
        ]
    erasures = tombstones(config.store)
    if made and erasures:
        data["erasures"] = len(erasures)
        lines.append(f"erased before, on {erasures[-1].erased_at}; {GOES_ON}")
    if hardware_id is None:
        lines.append("this hardware says no identifier: a copy of this device will not be noticed")
    if aside is not None:
        data["set_aside"] = str(aside)
        lines.append(f"what was here before is in {aside}")
    answer(arguments, data, lines)
    return 0


def _wanted_profile(arguments: argparse.Namespace, device_id: str | None) -> DeviceProfile:
    fields = {} if arguments.profile is None else _read_profile(arguments.profile)
    given = {
        name: value
        for name in PROFILE_TEXTS | PROFILE_NUMBERS
        if (value := getattr(arguments, name)) is not None
    }
    if device_id is not None:
        if "device_id" in given:
            raise UsageError("--device-id-from", "stands beside --device-id", "give one of them")
        given["device_id"] = device_id
    places = {name: f"{arguments.profile}: {name}" for name in fields}
    places |= {name: _flag(name) for name in given}
    return _profile_of(fields | given, places, now=now_of(arguments))


def _read_profile(path: Path) -> dict[str, object]:
    from ..sensors import json_object

    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise InputMissingError(path, "there is no such file", "check --profile") from None
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(path, f"cannot be read: {error}", "give JSON or TOML") from error
    if path.suffix.lower() != ".toml":
        return dict(json_object(text, where=str(path)))
    import tomllib

    try:
        return tomllib.loads(text)
    except ValueError as error:
        raise InputError(path, f"is no TOML: {error}", "correct the file") from error


def _flag(name: str) -> str:
    return "--" + name.replace("_", "-")


def _profile_of(
    fields: Mapping[str, object], places: Mapping[str, str], *, now: datetime
) -> DeviceProfile:
    """Check a profile field by field.

    Args:
        fields: by name, as a file or flags gave them.
        places: for each field the flag, or the file and name, to name when it is wrong.
        now: the device's time.
    """
    from models.telemetry import DeviceProfile
    from models.wire.errors import WireError
    from models.wire.topics import checked_device_id

    from ..telemetry_store import CLOCK_TOLERANCE_S

    names = PROFILE_TEXTS | PROFILE_NUMBERS
    unknown = ", ".join(sorted(set(fields) - names.keys()))
    if unknown:
        raise InputError("profile", f"unknown field {unknown}", f"known are {', '.join(names)}")
    missing = sorted(names.keys() - fields.keys() - OPTIONAL_IN_PROFILE)
    if missing:
        flags = " ".join(map(_flag, missing))
        raise UsageError("profile", "is not complete", f"also give {flags}")
    values: dict[str, Any] = {name: str(value) for name, value in fields.items()}
    for name in PROFILE_NUMBERS:
        values[name] = _capacity(values[name], places[name])
    for name, read in (("device_id", checked_device_id), ("manufactured_at", moment)):
        try:
            values[name] = read(values[name])
        except (ValueError, WireError) as error:
            raise InputError(places[name], str(error), REMEDIES[name]) from error
    made_at = values["manufactured_at"]
    if made_at > now + timedelta(seconds=CLOCK_TOLERANCE_S):
        what = f"{made_at.isoformat()} is after now, {now.isoformat(timespec='seconds')}"
        remedy = "correct it, set the clock, or give the device's time as --now"
        raise InputError(places["manufactured_at"], what, remedy)
    try:
        return DeviceProfile(**values)
    except ValueError as error:
        # Its messages begin with the name of the field.
        name = str(error).partition(" ")[0]
        remedy = REMEDIES.get(name, "give the capacity at which the maker replaces it, mAh")
        raise InputError(places.get(name, "profile"), str(error), remedy) from error


def _capacity(text: str, place: str) -> float:
    try:
        number = float(text)
    except ValueError:
        number = 0.0
    if not 0 < number < float("inf"):
        raise InputError(place, f"must be a number above 0, got {text}", "give it in mAh")
    return number


def run_record(arguments: argparse.Namespace) -> int:
    """Store one reading, or a file of them."""
    flags = {
        name: value
        for name, _ in MEASUREMENT_FLAGS
        if (value := getattr(arguments, name)) is not None
    }
    if arguments.file is not None and (flags or arguments.at):
        raise UsageError("record", "got a file and a reading", "give one of them")
    if arguments.file is None and not flags:
        raise UsageError(
            "record", "got no reading", "give a file, - or flags such as --usage-hours"
        )
    with open_store(arguments) as store:
        if arguments.file not in {None, "-"}:
            return _record_file(arguments, store)
        return _record_one(arguments, store, flags)


def _record_one(
    arguments: argparse.Namespace, store: TelemetryStore, flags: Mapping[str, str]
) -> int:
    from ..sensors import json_object, reading_of

    fields: Mapping[str, object]
    if arguments.file == "-":
        where = "standard input"
        fields = json_object(sys.stdin.read(), where=where)
    else:
        where = "record"
        fields = {"at": arguments.at or now_of(arguments).isoformat(), **flags}
    reading = reading_of(fields, where=where, device_id=store.profile.device_id)
    if isinstance(reading, ReadingRefusedError):
        store.count_refusal(reading.reason)
        raise reading
    store.record(reading, now=now_of(arguments))
    kept = store.num_readings()
    answer(
        arguments,
        {"stored": 1, "refused": {}, "readings": kept},
        [f"stored the reading of {reading.at.isoformat()} ({kept} readings)"],
    )
    return 0


def _record_file(arguments: argparse.Namespace, store: TelemetryStore) -> int:
    from ..sensors import numbered_readings_in

    path = Path(arguments.file)
    lines: list[int] = []

    def readings() -> Iterator[Reading | ReadingRefusedError]:
        for line, reading in numbered_readings_in(path, device_id=store.profile.device_id):
            lines.append(line)
            yield reading

    done = store.record_many(readings(), now=now_of(arguments))
    kept = store.num_readings()
    first = {
        reason: {"line": lines[position], "what": refusal.what}
        for reason, (position, refusal) in done.first_refused.items()
    }
    answer(
        arguments,
        {
            "stored": done.num_kept,
            "refused": dict(done.refused),
            "first_refused": first,
            "readings": kept,
        },
        [
            f"stored {done.num_kept} readings ({kept} in all)",
            *(
                f"refused {count}: {reason}, first in {path}:{first[reason]['line']}:"
                f" {first[reason]['what']}"
                for reason, count in sorted(done.refused.items())
            ),
        ],
    )
    return EVERYTHING_REFUSED if done.refused and not done.num_kept else 0


def run_export(arguments: argparse.Namespace) -> int:
    """Write out everything that the store holds."""
    import json

    from models.durable_file import write_durably

    with open_store(arguments) as store:
        text = json.dumps(store.export(), ensure_ascii=False, indent=1)
    if arguments.out is None:
        print(text)
        return 0
    write_durably(arguments.out, f"{text}\n".encode())
    answer(arguments, {"out": str(arguments.out)}, [f"wrote {arguments.out}"])
    return 0


def run_erase(arguments: argparse.Namespace) -> int:
    """Remove the store and the installed models."""
    from ..store.erasure import erase_device, tombstone_path

    path = config_of(arguments).store
    if not arguments.yes:
        raise UsageError(path, "erasing cannot be undone", "say so with --yes")
    promise = _erasure_promise(path)
    removed = erase_device(path, now=now_of(arguments))
    answer(
        arguments,
        {
            "removed": [str(file) for file in removed],
            "tombstone": str(tombstone_path(path)),
            "promise": promise,
        },
        [
            *(f"removed {file}" for file in removed),
            f"noted in {tombstone_path(path)}; a privacy ledger stays",
            *promise,
            "what the server has received before is not touched by this",
        ],
    )
    return 0


def _erasure_promise(path: Path) -> list[str]:
    """Say what an erasure does and does not do, from the ledger; little where it is not whole."""
    from privacy.erasure_text import erasure_facts, erasure_text

    from ..errors import LedgerError
    from ..privacy.account import promised_delta
    from ..privacy.ledger_file import read_device_ledger

    try:
        ledger = read_device_ledger(path)
    except LedgerError:
        return ["this device takes part in no training or count any more"]
    delta = promised_delta(ledger.events)
    return list(erasure_text(erasure_facts(ledger.entries, delta=delta)))
