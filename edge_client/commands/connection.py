"""`run`, `notices`, `answer`: talking to the server, and what came of it."""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from ..errors import InputError, JoinError, UsageError
from .answers import answer, config_file_of, config_of, moment_flag, now_of, open_store, table

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable

    from models.prediction import Report

    from ..agent import AgentPlan, DeviceAgent
    from ..client import EdgeClient
    from ..config import DeviceConfig
    from ..link.counters import AgentCounters
    from ..link.plan import Rounds
    from ..link.release_watch import ReleaseWatch
    from ..notices import ShownNotice
    from ..provisioning.membership import Membership
    from ..provisioning.renewal import CertificateKeeper
    from ..store.mailbox import StoredNotice

    Clock = Callable[[], datetime]

NO_NOTICE_CAME = 1
DEFAULT_TIMEOUT_S = 60.0
MOST_TIMEOUT_S = 366 * 86_400.0
MOST_HOURS = 366 * 24.0
SAYABLE = ("accept", "decline", "snooze")
BUTTONS_THAT_ANSWER = (
    "request_replacement",
    "schedule_replacement",
    "book_appointment",
    "remind_next_week",
)
BUTTONS_THAT_SHOW_THE_REPORT = ("view_details", "view_report")
BUTTON_FOR_A_PERSON = "talk_to_a_person"
BUTTONS = (*BUTTONS_THAT_ANSWER, *BUTTONS_THAT_SHOW_THE_REPORT, BUTTON_FOR_A_PERSON)


def add_run(run: argparse.ArgumentParser) -> None:
    """Add the arguments of `run`."""
    ends = run.add_mutually_exclusive_group()
    ends.add_argument("--once", action="store_true", help="end once the summary was sent")
    ends.add_argument(
        "--until-acked", action="store_true", help="end once a notice was shown and acknowledged"
    )
    run.add_argument(
        "--timeout",
        type=up_to(MOST_TIMEOUT_S),
        metavar="S",
        help="end after so many seconds; with --once or --until-acked default 60",
    )
    run.add_argument(
        "--answer", choices=SAYABLE, help="what to say for the owner after showing a notice"
    )
    run.add_argument(
        "--predict-every",
        type=up_to(MOST_HOURS),
        default=24.0,
        metavar="H",
        help="hours; default 24",
    )
    run.add_argument(
        "--now", type=moment_flag, metavar="TIME", help="start the device's clock here"
    )


def add_notices(notices: argparse.ArgumentParser) -> None:
    """Add the arguments of `notices`."""
    notices.add_argument("--now", type=moment_flag, metavar="TIME", help="the device's time")


def add_answer(answer_parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `answer`."""
    answer_parser.add_argument("notice", metavar="NOTICE", help="its identifier")
    answer_parser.add_argument(
        "word",
        choices=(*SAYABLE, *BUTTONS),
        metavar="WORD",
        help=f"what the owner says: {', '.join(SAYABLE)}, or the code of one of the notice's"
        f" buttons: {', '.join(BUTTONS)}",
    )
    answer_parser.add_argument("--now", type=moment_flag, metavar="TIME", help="the device's time")


def up_to(most: float) -> Callable[[str], float]:
    """Return what reads a number above 0, and not above `most`, from a flag."""
    import argparse

    def number_of(text: str) -> float:
        try:
            number = float(text)
        except ValueError:
            number = 0.0
        if not 0 < number <= most:
            message = f"must be a number above 0, at most {most:.0f}, got {text[:40]!r}"
            raise argparse.ArgumentTypeError(message)
        return number

    return number_of


def clock_from(start: datetime | None) -> Clock:
    """Return the system's clock, or one that shows `start` now and goes on from there."""
    if start is None:
        return lambda: datetime.now(UTC)
    began = time.monotonic()
    return lambda: start + timedelta(seconds=time.monotonic() - began)


def run_run(arguments: argparse.Namespace) -> int:
    """Run the agent."""
    import logging
    import os
    import signal

    config = config_of(arguments)
    membership = _membership(config)

    from ..link.light_paho import load_paho

    load_paho(speaks_tls=membership is not None)

    from ..agent import AgentParts, elapsed_s, run_agent
    from ..client import EdgeClient
    from ..link.watchdog import Watchdog
    from ..sensing.sampler import sampler_of
    from ..store.mailbox import Purpose
    from .identity import hardware_id_of

    logging.basicConfig(level=logging.WARNING, format="%(levelname)s %(name)s: %(message)s")
    broker = _broker(config, membership)
    plan = _plan(arguments, bytes_per_day=config.bytes_per_day)
    clock = clock_from(getattr(arguments, "now", None))
    keys = _server_keys(config, membership)

    watchdog = Watchdog.of_environment(os.environ, pid=os.getpid())

    def begin(agent: DeviceAgent) -> None:
        signal.signal(signal.SIGTERM, lambda *_: agent.stop())
        watchdog.ready()

    _look_through_store(config, now=clock())
    with EdgeClient.of_config(config) as client:
        keeper = _keeper(config, client, membership, clock=clock)
        if client.store.consents()[Purpose.NOTICES].granted and not keys:
            remedy = "give --server-key FILE, the public key of the server"
            raise UsageError("run", "no key can verify notices", remedy)
        counters = run_agent(
            client,
            broker=broker,
            server_keys=keys,
            plan=plan,
            clock=clock,
            parts=AgentParts(
                hardware_id=hardware_id_of(config),
                store_key=config.key_source(),
                sampler=sampler_of(config, client, now=clock(), elapsed_s=elapsed_s()),
                supervisor=watchdog,
                tls=None if keeper is None else keeper.link_tls,
                renewal=keeper,
                releases=_release_watch(config, client, clock=clock),
                rounds=_site_rounds(arguments, config, keys, keeper, clock=clock),
            ),
            on_start=begin,
            on_report=lambda report: _tell_report(arguments, report),
            show=lambda notice_id, shown: _tell_notice(arguments, notice_id, shown),
        )
    watchdog.stopping()
    return _tell_end(arguments, counters)


def _membership(config: DeviceConfig) -> Membership | None:
    """Return the device's place in its fleet, None where it has none or speaks in the clear."""
    if not config.wants_tls():
        return None
    from ..provisioning.membership import read_membership

    return read_membership(config.store)


def _broker(config: DeviceConfig, membership: Membership | None) -> tuple[str, int]:
    """Return host and port of the broker that was named, else of the fleet's."""
    if config.broker is None and membership is not None:
        return membership.broker_address()
    return config.broker_address()


def _server_keys(config: DeviceConfig, membership: Membership | None) -> dict[str, bytes]:
    """Return the keys that sign what the server says: those that were named, else the fleet's."""
    from models.trusted_keys import read_trusted_keys

    if config.server_key is not None:
        return read_trusted_keys(config.server_key)
    named = {} if membership is None else membership.server_keys
    return {key_id: bytes.fromhex(key) for key_id, key in named.items()}


def _keeper(
    config: DeviceConfig, client: EdgeClient, membership: Membership | None, *, clock: Clock
) -> CertificateKeeper | None:
    """Return what keeps the certificate alive, None for a device that has joined no fleet."""
    if membership is None:
        return None
    from random import SystemRandom

    from ..agent import elapsed_s
    from ..provisioning.identity import own_identity
    from ..provisioning.membership import JOIN_ANEW
    from ..provisioning.renewal import CertificateKeeper
    from .identity import hardware_id_of

    identity = own_identity(
        client.store,
        device_id=client.profile.device_id,
        hardware_id=hardware_id_of(config),
    )
    if identity is None or membership.device_id != identity.device_id:
        what = "belongs to another device than its store"
        raise JoinError(membership.folder, what, JOIN_ANEW)
    return CertificateKeeper(
        config.store,
        identity,
        membership,
        clock=clock,
        elapsed_s=elapsed_s,
        jitter=SystemRandom(),
    )


def _release_watch(
    config: DeviceConfig, client: EdgeClient, *, clock: Clock
) -> ReleaseWatch | None:
    """Return what looks for releases, None for a device that follows no repository."""
    if config.releases is None:
        return None
    from random import SystemRandom

    from ..link.release_watch import ReleaseWatch
    from ..updates.follower import ReleaseSource

    return ReleaseWatch(
        client.models,
        ReleaseSource(url=config.releases, first_root=config.releases_root),
        check_every_s=config.check_in_every_h * 3_600.0,
        jitter=SystemRandom(),
        clock=clock,
        backend=config.chosen_backend(),
    )


def _site_rounds(
    arguments: argparse.Namespace,
    config: DeviceConfig,
    keys: dict[str, bytes],
    keeper: CertificateKeeper | None,
    *,
    clock: Clock,
) -> Rounds | None:
    """Return what takes part in rounds behind a gateway, None where that is not turned on."""
    if not config.takes_part_behind_gateway():
        return None
    from ..site_rounds.settings import site_rounds_of

    return site_rounds_of(
        config,
        config_file_of(arguments),
        server_keys=keys,
        grant_time=clock if keeper is None else keeper.time,
    )


def _tell_end(arguments: argparse.Namespace, counters: AgentCounters) -> int:
    no_notice_came = arguments.until_acked and not counters.shown
    answer(
        arguments,
        {
            "event": "end",
            "summaries": counters.summaries,
            "shown": counters.shown,
            "repeated": counters.repeated,
            "refused": counters.refused,
            "confirmed": counters.confirmed,
            "configurations": counters.configurations,
        },
        [
            f"messages sent: {counters.confirmed}, notices shown: {counters.shown}",
            *(f"refused {count}: {reason}" for reason, count in counters.refused.items()),
            *(["no notice came"] if no_notice_came else []),
        ],
    )
    return NO_NOTICE_CAME if no_notice_came else 0


def _look_through_store(config: DeviceConfig, *, now: datetime) -> None:
    """Set a damaged store aside and begin anew, before anything is made of it."""
    import logging

    from ..store.recovery import open_or_recover

    store, recovery = open_or_recover(config.store, now, config.key_source())
    store.close()
    if recovery is not None:
        logging.getLogger(__name__).warning(
            "the store was damaged (%s) and is begun anew; what it was is in %s",
            recovery.damage,
            recovery.set_aside,
        )


def _plan(arguments: argparse.Namespace, *, bytes_per_day: int) -> AgentPlan:
    from ..agent import AgentPlan, Until
    from ..link.notice_receiver import ANSWERS

    until = Until.SENT if arguments.once else Until.STOPPED
    until = Until.ACKED if arguments.until_acked else until
    timeout_s = arguments.timeout
    if timeout_s is None and until is not Until.STOPPED:
        timeout_s = DEFAULT_TIMEOUT_S
    return AgentPlan(
        until=until,
        timeout_s=timeout_s,
        answer=None if arguments.answer is None else ANSWERS[arguments.answer],
        predict_every=timedelta(hours=arguments.predict_every),
        bytes_per_day=bytes_per_day,
    )


def _tell_report(arguments: argparse.Namespace, report: Report) -> None:
    from .prediction import report_json

    days = report.days_to_failure_p50
    estimate = report.status if days is None else f"{days:.0f} days to failure"
    answer(
        arguments,
        {"event": "report", **report_json(report)},
        [f"{report.device_id}: {estimate} (model {report.model_version})"],
    )


def _tell_notice(arguments: argparse.Namespace, notice_id: str, shown: ShownNotice) -> None:
    lines = ["", *(f"  | {line}".rstrip() for line in shown.text().splitlines()), ""]
    if arguments.answer is None:
        words = "|".join([*shown.actions, "decline"])
        lines += [f"answer with: fedcell-device answer {notice_id} {words}", ""]
    answer(arguments, {"event": "notice", "id": notice_id, **shown.as_json()}, lines)


def run_notices(arguments: argparse.Namespace) -> int:
    """Show the inbox, each notice as its owner reads it; those whose time is over are counted."""
    from models.wire.codec import decode
    from models.wire.messages import Notice

    from ..client import EdgeClient
    from ..link.admission import end_of

    now = now_of(arguments)
    found, num_over = [], 0
    with EdgeClient.of_config(config_of(arguments)) as client:
        pack_since = client.pack_since
        for stored in client.store.notices():
            notice = decode(stored.body.encode(), Notice)
            if end_of(notice, now=now, pack_since=pack_since) is not None:
                num_over += 1
            else:
                found.append((stored, client.handle_notice(notice, now)))
    data = {
        "over": num_over,
        "notices": [
            {
                "id": stored.message_id,
                "state": stored.state,
                "received_at": stored.received_at.isoformat(),
                **shown.as_json(),
            }
            for stored, shown in found
        ],
    }
    rows = [
        (stored.message_id, f"{stored.received_at:%Y-%m-%d}  {stored.state}  {shown.subject}")
        for stored, shown in found
    ]
    what = "not shown any more (time over, or battery replaced)"
    over = [f"{what}: {num_over}"] if num_over else []
    answer(arguments, data, [*table(rows), *over] or ["no notice came yet"])
    return 0


def run_answer(arguments: argparse.Namespace) -> int:
    """Do what the owner chose: keep an answer for the agent to tell, or show what was asked for."""
    from ..link.notice_receiver import ANSWERS, answer_notice

    with open_store(arguments) as store:
        try:
            stored = store.notice(arguments.notice)
        except KeyError:
            remedy = "list them: fedcell-device notices"
            raise InputError(arguments.notice, "there is no such notice", remedy) from None
        if arguments.word in ANSWERS:
            stored = answer_notice(
                store,
                arguments.notice,
                ANSWERS[arguments.word],
                device_id=store.profile.device_id,
                now=now_of(arguments),
            )
    if arguments.word in BUTTONS_THAT_SHOW_THE_REPORT:
        return _show_report(arguments)
    if arguments.word == BUTTON_FOR_A_PERSON:
        return _show_contact(arguments, stored)
    answer(
        arguments,
        {"id": stored.message_id, "state": stored.state},
        [f"{stored.message_id}: {stored.state}; the running agent tells the server"],
    )
    return 0


def _show_report(arguments: argparse.Namespace) -> int:
    import argparse

    from .prediction import run_predict

    return run_predict(argparse.Namespace(**vars(arguments), explain=True, language=None))


def _show_contact(arguments: argparse.Namespace, stored: StoredNotice) -> int:
    from models.wire.codec import decode
    from models.wire.messages import Notice

    contact = decode(stored.body.encode(), Notice).human_contact
    answer(
        arguments,
        {"id": stored.message_id, "human_contact": contact},
        [f"you reach a person here: {contact}"],
    )
    return 0
