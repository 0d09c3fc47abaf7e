"""`fedcell server`: the hub between devices and owners, its broker, its key and its state."""

from __future__ import annotations

import json
import os
import signal
import threading
from dataclasses import asdict
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from ..clock import Clock
    from ..config import ServerConfig
    from ..hub_status import HubStatus

AsJson = Annotated[bool, typer.Option("--json", help="For machines.")]
Config = Annotated[
    str | None, typer.Option("--config", metavar="FILE", help="TOML file of settings.")
]
DeviceKeysFile = Annotated[
    str | None,
    typer.Option("--device-keys", metavar="FILE", help="Devices' public keys: seal to them."),
]
KeyFile = Annotated[
    str | None, typer.Option("--key", metavar="FILE", help="Key that signs what the server says.")
]
Db = Annotated[
    str | None,
    typer.Option("--db", metavar="URL", help="Database, such as sqlite:///fedcell.db."),
]


class Stoppable(StrEnum):
    """What can be stopped on a device from afar."""

    TRAINING = "training"
    PREDICTION = "prediction"
    SUMMARIES = "summaries"
    NOTICES = "notices"


def register(app: typer.Typer) -> None:
    """Add the group `server` to the root command."""
    from .broker_setup import broker_config, check_broker_command

    group = typer.Typer(
        name="server",
        help="Hear devices, decide on notices, deliver them.",
        no_args_is_help=True,
        rich_markup_mode=None,
    )
    group.command("run")(run)
    group.command("status")(status)
    group.command("configure")(configure)
    group.command("key")(key)
    group.command("broker")(broker)
    group.command("broker-config")(broker_config)
    group.command("check-broker")(check_broker_command)
    app.add_typer(group)


def run(
    *,
    db: Db = None,
    broker_address: Annotated[
        str | None, typer.Option("--broker", metavar="HOST:PORT", help="MQTT broker.")
    ] = None,
    key_file: KeyFile = None,
    device_keys: DeviceKeysFile = None,
    human_contact: Annotated[
        str | None, typer.Option(help="Where owners reach a person; stands in every notice.")
    ] = None,
    config: Config = None,
    clock: Annotated[
        str | None,
        typer.Option(metavar="ISO", help="Simulated time: begin here instead of now."),
    ] = None,
    clock_file: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Simulated time: follow the ISO time in this file."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Serve until SIGTERM or Ctrl-C: hear summaries, decide, deliver notices, record answers."""
    from ..hub_process import connected_hub

    settings = settings_from(
        {
            "db": db,
            "broker": broker_address,
            "key": key_file,
            "device_keys": device_keys,
            "human_contact": human_contact,
            "config": config,
        }
    )
    stop = threading.Event()
    with connected_hub(settings, clock=_clock(clock, clock_file)) as hub:

        def end(_signal: int, _frame: object) -> None:
            stop.set()
            hub.wake()

        signal.signal(signal.SIGTERM, end)
        signal.signal(signal.SIGINT, end)
        ready = {"event": "ready", "broker": settings.broker, "pid": os.getpid()}
        say(ready, f"hub listens through the broker at {settings.broker}", as_json=as_json)
        hub.run(stop)
        done = asdict(hub.counters)
    listed = ", ".join(f"{name} {count}" for name, count in done.items())
    say({"event": "stopped", **done}, f"hub stopped: {listed}", as_json=as_json)


def status(
    *,
    db: Db = None,
    device_keys: DeviceKeysFile = None,
    config: Config = None,
    as_json: AsJson = False,
) -> None:
    """Show how many notices there are and where, what was not sent and why."""
    from ..device_keys import DeviceKeyFile
    from ..hub_status import hub_status
    from ..storage.database import open_database

    settings = settings_from({"db": db, "device_keys": device_keys, "config": config})
    keys = None if settings.device_keys is None else DeviceKeyFile(settings.device_keys)
    with open_database(settings.db, must_exist=True) as database:
        found = hub_status(database, device_keys=keys)
    print(json.dumps(found.to_json()) if as_json else _status_text(found))


def configure(
    *,
    devices: Annotated[list[str], typer.Argument(metavar="DEVICE...", help="Which devices.")],
    stop: Annotated[
        list[Stoppable] | None,
        typer.Option(help="What they shall not do; the rest is as their owners agreed."),
    ] = None,
    predict_every: Annotated[
        int | None,
        typer.Option(min=1, max=168, metavar="H", help="Hours from one prediction to the next."),
    ] = None,
    db: Db = None,
    key_file: KeyFile = None,
    config: Config = None,
    clock: Annotated[
        str | None, typer.Option(metavar="ISO", help="Simulated time: now is this.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Tell devices what they shall not do, in place of what they were told before.

    The running server sends it, signed, until each device says that it is in force. Nothing given:
    everything is as the owners agreed.
    """
    import secrets

    from ..device_configuration import ConfigurationSender, DeviceSettings
    from ..signer import load_signer
    from ..storage.database import open_database

    settings = settings_from({"db": db, "key": key_file, "config": config})
    stopped: dict[str, Any] = {what.value: False for what in stop or ()}
    wanted = DeviceSettings(**stopped, predict_every_h=predict_every)
    signer = load_signer(settings.key)
    now = _clock(clock, None)()
    with (
        open_database(settings.db, must_exist=True) as database,
        database.transaction() as connection,
    ):
        sender = ConfigurationSender(connection, signer, lambda: secrets.token_hex(16))
        sent = {name: sender.send(name, wanted, now=now).sequence for name in devices}
    said = wanted.said()
    words = ", ".join(
        f"{name} {'stopped' if value is False else value}" for name, value in said.items()
    )
    line = f"{len(sent)} devices are told: {words or 'as their owners agreed'}"
    say({"devices": sent, "settings": said}, line, as_json=as_json)


def key(
    *,
    out: Annotated[Path, typer.Option(metavar="FILE", help="Where to write the private key.")],
    as_json: AsJson = False,
) -> None:
    """Make a signing key, and beside it the public half that devices trust."""
    from ..signer import make_key_file, public_key_path

    made = make_key_file(out)
    public = public_key_path(out)
    answer = {"key_id": made.key_id, "private": str(out), "public": str(public)}
    say(answer, f"key {made.key_id}: keep {out} secret, give {public} to devices", as_json=as_json)


def broker(
    *,
    port: Annotated[int, typer.Option(min=1, max=65_535, help="TCP port on this machine.")] = 1883,
    directory: Annotated[
        Path, typer.Option("--dir", help="Folder for configuration, log and sessions.")
    ] = Path("fedcell-broker"),
    kind: Annotated[
        str | None,
        typer.Option(metavar="KIND", help="mosquitto or embedded; else whichever is installed."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Run an MQTT broker for this machine alone, until SIGTERM or Ctrl-C."""
    from ..broker import running_broker

    stop = threading.Event()

    def end(_signal: int, _frame: object) -> None:
        stop.set()

    signal.signal(signal.SIGTERM, end)
    signal.signal(signal.SIGINT, end)
    with running_broker(directory, port=port, kind=_broker_kind(kind)) as running:
        ready = {
            "event": "ready",
            "kind": running.kind.value,
            "host": running.host,
            "port": running.port,
        }
        line = f"{running.kind.value} listens at {running.host}:{running.port}"
        say(ready, line, as_json=as_json)
        while running.is_running() and not stop.wait(0.5):
            continue
        if not stop.is_set():
            from ..errors import BrokerError

            remedy = f"see {directory}"
            raise BrokerError(port=port, what="it ended by itself", remedy=remedy)


def settings_from(flags: dict[str, str | None]) -> ServerConfig:
    """Put the settings together from flags, environment and file."""
    from ..config import read_config

    return read_config(flags, os.environ)


def _clock(start: str | None, file: Path | None) -> Clock:
    from ..clock import clock_from, clock_from_file, machine_clock, parse_time
    from ..errors import SettingError

    if start is not None and file is not None:
        raise SettingError("clock", "is given twice", "use --clock or --clock-file")
    if file is not None:
        return clock_from_file(file)
    return machine_clock if start is None else clock_from(parse_time("clock", start))


def _broker_kind(name: str | None) -> Any:
    from ..broker import BrokerKind
    from ..errors import SettingError

    if name is None:
        return None
    try:
        return BrokerKind(name)
    except ValueError:
        names = " or ".join(kind.value for kind in BrokerKind)
        raise SettingError("kind", f"there is no broker {name!r}", f"choose {names}") from None


def say(answer: dict[str, Any], line: str, *, as_json: bool) -> None:
    """Answer a person, or a machine."""
    print(json.dumps(answer) if as_json else line, flush=True)


def _status_text(found: HubStatus) -> str:
    lines = [
        f"devices       {found.devices}",
        f"notices sent  {found.sent}",
        f"acknowledged  {found.acknowledged}",
        f"waiting       {found.waiting}",
    ]
    if found.devices_without_key is not None:
        lines.append(f"without key   {found.devices_without_key}")
    for heading, counts in (
        ("notices", found.notices),
        ("suppressed", found.suppressed),
        ("dead letters", found.dead_letters),
        ("configurations", found.configurations),
        ("models refused by devices", found.refused_models),
    ):
        lines += [f"{heading}:"] if counts else []
        lines += [f"  {name:<20} {count}" for name, count in sorted(counts.items())]
    return "\n".join(lines)
