"""Broker, server and six agents as processes of their own: notices sent, shown, acknowledged."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from models.wire.messages import NoticeState
from server.broker import choose_broker, running_broker
from server.hub_status import hub_status
from server.replacements import ReasonCode
from server.signer import make_key_file, public_key_path
from server.storage.audit import AuditTrail
from server.storage.database import open_database

from ..run_report_parts import BrokerKind, DeviceNotice, Expectation, Notices
from .device_stores import fill_stores, write_device_keys
from .processes import Child, Children, program

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    import server.broker
    from server.storage.database import Database

    from .chosen_devices import Cast
    from .device_stores import FilledStore, TrustedBundle
    from .scene import JudgedFleet

SERVER_PROGRAM, DEVICE_PROGRAM = "fedcell", "fedcell-device"
HUMAN_CONTACT = "support@example.org"
START_TIMEOUT_S = 60.0
TALK_TIMEOUT_S = 90.0
ANSWERS = {Expectation.URGENT: "accept", Expectation.SOON: "snooze"}
"""What owners say after reading their notice."""
ON_THE_WAY = frozenset({NoticeState.QUEUED, NoticeState.RECEIVED, NoticeState.SHOWN})
NOT_DUE = "no_notice_due"


@dataclass(frozen=True, slots=True)
class Conversation:
    """What came of the talk between server and devices.

    Attributes:
        notices: sent, acknowledged and held back, and what each owner reads.
        broker: who carried them.
    """

    notices: Notices
    broker: BrokerKind


def require_parts(scratch: Path, broker_kind: server.broker.BrokerKind | None) -> None:
    """Refuse at once what would otherwise be missed after minutes.

    Args:
        scratch: a folder; nothing is written.
        broker_kind: None takes Mosquitto where installed.

    Raises:
        BrokerMissingError: no such broker is installed.
        ProgramMissingError: a command of this package is not installed.
    """
    choose_broker(scratch, kind=broker_kind)
    for name in (SERVER_PROGRAM, DEVICE_PROGRAM):
        program(name)


def talk(
    fleet: JudgedFleet,
    cast: Cast,
    *,
    scratch: Path,
    database_url: str,
    broker_kind: server.broker.BrokerKind | None,
    bundle: TrustedBundle | None,
    tell: Callable[[str], None],
) -> Conversation:
    """Start broker, server and agents, and wait until everything that is due was said.

    Args:
        fleet: of which the devices are.
        cast: who, and when; the one simulated clock of server and agents starts there.
        scratch: folder for stores, key and logs; the caller removes it.
        database_url: of the server.
        broker_kind: None takes Mosquitto where installed.
        bundle: that devices install; None runs the default one.
        tell: takes a line for each step.

    Raises:
        BrokerError: no broker is installed, or it did not start.
        ProcessError: a process failed, or was too slow.
    """
    tell(f"filling {len(cast.devices)} stores; the devices' clock: {cast.now:%Y-%m-%d %H:%M} UTC")
    key = scratch / "notices.pem"
    make_key_file(key)
    stores_folder = scratch / "devices"
    stores_folder.mkdir()
    stores = fill_stores(fleet, cast, stores_folder, bundle=bundle)
    device_keys = write_device_keys(stores, scratch / "device-keys.jsonl")
    with (
        running_broker(scratch / "broker", kind=broker_kind) as broker,
        Children(scratch) as children,
    ):
        address = f"{broker.host}:{broker.port}"
        tell(f"starting the server, which seals its notices, and the agents, over {address}")
        hub = _start_hub(children, server_arguments(database_url, address, key, device_keys, cast))
        agents = {
            store.device.device_id: children.start(
                store.device.device_id, agent_arguments(store, address, key, cast)
            )
            for store in stores
        }
        with open_database(database_url, must_exist=True) as database:
            _await_all(children, hub, agents, stores, database)
            status = hub_status(database)
            reasons = _reasons_of(database, cast)
        told = [_what_became(store, agents[store.device.device_id], reasons) for store in stores]
        for one in told:
            tell(_told_line(one, _report_of(agents[one.device])))
        kind = BrokerKind(broker.kind.value)
    notices = Notices(
        sent=status.sent,
        acknowledged=status.acknowledged,
        suppressed=held_back(status.suppressed),
        per_device=tuple(told),
    )
    return Conversation(notices=notices, broker=kind)


def server_arguments(
    database_url: str, address: str, key: Path, device_keys: Path, cast: Cast
) -> list[str]:
    """Return the command line of the server, which seals what it sends."""
    return [
        program(SERVER_PROGRAM),
        "server",
        "run",
        *("--db", database_url),
        *("--broker", address),
        *("--key", str(key)),
        *("--device-keys", str(device_keys)),
        *("--human-contact", HUMAN_CONTACT),
        *("--clock", cast.now.isoformat()),
        "--json",
    ]


def agent_arguments(store: FilledStore, address: str, key: Path, cast: Cast) -> list[str]:
    """Return the command line of one agent; it ends by itself once it has done its part."""
    answer = ANSWERS.get(store.device.expectation)
    part = ["--once"] if answer is None else ["--until-acked", "--answer", answer]
    return [
        program(DEVICE_PROGRAM),
        "run",
        *("--store", str(store.path)),
        *("--broker", address),
        *("--server-key", str(public_key_path(key))),
        *("--now", cast.now.isoformat()),
        *("--timeout", f"{TALK_TIMEOUT_S:g}"),
        *part,
        "--json",
    ]


def held_back(suppressed: dict[str, int]) -> dict[str, int]:
    """Return the notices that were due and not sent, by reason."""
    return {reason: n for reason, n in suppressed.items() if reason != ReasonCode.NOT_DUE.value}


def _start_hub(children: Children, arguments: list[str]) -> Child:
    hub = children.start("server", arguments)
    children.wait_for(
        "the server's first sign", lambda: bool(hub.events()), timeout_s=START_TIMEOUT_S, of=hub
    )
    return hub


def _await_all(
    children: Children,
    hub: Child,
    agents: dict[str, Child],
    stores: Sequence[FilledStore],
    database: Database,
) -> None:
    """Wait until every agent has done its part, and the server has heard of it."""
    for agent in agents.values():
        children.wait_for(
            "its end",
            lambda agent=agent: agent.process.poll() is not None,  # type: ignore[misc]  # bound now
            timeout_s=TALK_TIMEOUT_S + START_TIMEOUT_S,
            of=agent,
        )

    def server_knows() -> bool:
        status = hub_status(database)
        on_the_way = sum(status.notices.get(state.value, 0) for state in ON_THE_WAY)
        decided = status.sent + sum(status.suppressed.values())
        return decided >= len(stores) and not on_the_way and status.acknowledged == status.sent

    children.wait_for("the last word", server_knows, timeout_s=TALK_TIMEOUT_S, of=hub)


def _reasons_of(database: Database, cast: Cast) -> dict[str, str]:
    """Return the last thing that the server's audit trail says of each device."""
    with database.transaction() as connection:
        trail = AuditTrail(connection)
        return {
            device.device_id: trail.of_device(device.device_id)[-1].reason_code
            for device in cast.devices
        }


def _what_became(store: FilledStore, agent: Child, reasons: dict[str, str]) -> DeviceNotice:
    device = store.device
    reason = reasons[device.device_id]
    shown = next((event for event in agent.events() if event.get("event") == "notice"), None)
    if reason == ReasonCode.NOT_DUE.value:
        state = NOT_DUE
    else:
        state = f"suppressed: {reason}" if reason in set(ReasonCode) else reason
    return DeviceNotice(
        device=device.device_id,
        expectation=device.expectation,
        template=None if shown is None else shown["template"],
        state=state,
        text=None if shown is None else shown["text"],
        language=None if shown is None else shown["language"],
    )


def _report_of(agent: Child) -> dict[str, Any]:
    return next((event for event in agent.events() if event.get("event") == "report"), {})


def _told_line(one: DeviceNotice, report: dict[str, Any]) -> str:
    days = report.get("days_to_failure_p50")
    expected = "no prediction" if days is None else f"{days:.0f} days expected"
    return f"{one.device}: {expected}, {one.template or 'no notice'}, {one.state.replace('_', ' ')}"
