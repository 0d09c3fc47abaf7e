"""`consent`, `owner`, `failed`, `outbox`: the owner's word and wishes, and what would leave."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ..errors import UsageError
from .answers import answer, config_of, moment_flag, now_of, open_store, table

if TYPE_CHECKING:
    import argparse
    from datetime import datetime

    from models.quiet_hours import QuietHours

    from ..client import EdgeClient

PURPOSES = ("training", "summaries", "notices")


def add_consent(consent: argparse.ArgumentParser) -> None:
    """Add the arguments of `consent`."""
    consent.add_argument(
        "act",
        nargs="?",
        choices=("show", "grant", "withdraw"),
        default="show",
        help="default: show",
    )
    what = f"{', '.join(PURPOSES)}, or all"
    consent.add_argument("purpose", nargs="*", metavar="PURPOSE", help=what)
    consent.add_argument("--now", type=moment_flag, metavar="TIME", help="the device's time")


def add_owner(owner: argparse.ArgumentParser) -> None:
    """Add the arguments of `owner`."""
    owner.add_argument("--language", help="in which the owner reads: en or de")
    owner.add_argument("--quiet-hours", metavar="22-7", help="local hours without notices, or none")
    owner.add_argument("--zone", help="the owner's time zone, such as Europe/Berlin")
    owner.add_argument("--now", type=moment_flag, metavar="TIME", help="the device's time")


def add_failed(failed: argparse.ArgumentParser) -> None:
    """Add the arguments of `failed`."""
    failed.add_argument("--at", type=moment_flag, metavar="TIME", help="when; default now")
    failed.add_argument("--cause", help="swelling, charger_fault, ...; leave out if not known")
    failed.add_argument("--take-back", action="store_true", help="forget what was said before")
    failed.add_argument("--now", type=moment_flag, metavar="TIME", help="the device's time")


def add_outbox(outbox: argparse.ArgumentParser) -> None:
    """Add the arguments of `outbox`."""
    outbox.add_argument("--now", type=moment_flag, metavar="TIME", help="the device's time")


def quiet_hours_of(span: str, zone: str | None) -> QuietHours:
    """Read quiet hours from flags.

    Raises:
        UsageError: they are none, or this machine does not know the zone: every notice would wait.
    """
    from models.quiet_hours import QuietHours, known_zone

    try:
        quiet = QuietHours.parse(span, zone or "")
    except ValueError as error:
        raise UsageError("--quiet-hours", str(error), "correct the value") from error
    if known_zone(quiet.zone) is None:
        remedy = "give one such as Europe/Berlin (Debian: apt-get install tzdata)"
        raise UsageError("--zone", f"unknown time zone {zone!r}", remedy)
    return quiet


def run_consent(arguments: argparse.Namespace) -> int:
    """Show or change the owner's word."""
    from ..link.configuration import stopped
    from ..store.mailbox import Purpose

    names = PURPOSES if arguments.purpose == ["all"] else tuple(arguments.purpose)
    unknown = ", ".join(name for name in names if name not in PURPOSES)
    if unknown:
        raise UsageError("consent", f"unknown purpose {unknown}", f"known: {', '.join(PURPOSES)}")
    if arguments.act != "show" and not names:
        raise UsageError("consent", f"{arguments.act} what?", f"name {', '.join(PURPOSES)} or all")
    with open_store(arguments) as store:
        if arguments.act != "show":
            for name in names:
                store.set_consent(
                    Purpose(name), granted=arguments.act == "grant", now=now_of(arguments)
                )
        consents = store.consents()
        is_stopped = stopped(store)
    answer(
        arguments,
        {
            purpose.value: {
                "granted": said.granted,
                "changed_at": None if said.changed_at is None else said.changed_at.isoformat(),
                "stopped": purpose.value in is_stopped,
            }
            for purpose, said in consents.items()
        },
        table(
            (
                purpose.value,
                ("granted" if said.granted else "not granted")
                + (f", {said.changed_at:%Y-%m-%d %H:%M} UTC" if said.changed_at else "")
                + (", stopped by the server for now" if purpose.value in is_stopped else ""),
            )
            for purpose, said in consents.items()
        ),
    )
    return 0


def run_owner(arguments: argparse.Namespace) -> int:
    """Show or change the owner's wishes."""
    with open_store(arguments) as store:
        if arguments.quiet_hours == "none":
            store.set_quiet_hours(None)
        elif arguments.quiet_hours is not None:
            store.set_quiet_hours(quiet_hours_of(arguments.quiet_hours, arguments.zone))
        elif arguments.zone is not None:
            raise UsageError("--zone", "belongs to quiet hours", "also give --quiet-hours")
        if arguments.language is not None:
            store.set_language(arguments.language)
        language, quiet = store.language, store.quiet_hours
    answer(
        arguments,
        {
            "language": language,
            "quiet_hours": None if quiet is None else quiet.span(),
            "zone": None if quiet is None else quiet.zone,
        },
        table(
            [
                ("language", language),
                ("quiet hours", "none" if quiet is None else f"{quiet.span()} {quiet.zone}"),
            ]
        ),
    )
    return 0


def run_failed(arguments: argparse.Namespace) -> int:
    """Keep the owner's word that the battery failed, for training on this device."""
    now = now_of(arguments)
    failed_at = arguments.at or now
    with open_store(arguments) as store:
        if arguments.take_back:
            store.take_failures_back()
        else:
            store.keep_failure(failed_at=failed_at, cause=arguments.cause, now=now)
    if arguments.take_back:
        answer(arguments, {"failed_at": None}, ["no failure is kept any more"])
    else:
        answer(
            arguments,
            {"failed_at": failed_at.isoformat(), "cause": arguments.cause},
            [f"kept: failed at {failed_at:%Y-%m-%d %H:%M} UTC; it never leaves this device"],
        )
    return 0


def run_outbox(arguments: argparse.Namespace) -> int:
    """Show what waits for the broker, and what the next summary would say."""
    from dataclasses import asdict

    from ..client import EdgeClient
    from ..summaries import leaving_fields

    now = now_of(arguments)
    with EdgeClient.of_config(config_of(arguments)) as client:
        client.predict(now, explain=False)
        summary = client.preview_summary(now)
        waiting = client.store.outbox()
        noise = _noise(client, now)
    fields = () if summary is None else leaving_fields(summary)
    data = {
        "waiting": [
            {"purpose": item.purpose.value, "topic": item.topic, "payload": item.text()}
            for item in waiting
        ],
        "next_summary": [asdict(field) for field in fields],
        "noise": noise,
    }
    lines = [f"waiting for the broker: {len(waiting)}"]
    lines += [f"  {item.topic}  {item.text()}" for item in waiting]
    if fields:
        lines += ["the next summary would say:"]
        lines += table((f"  {field.name}", f"{field.value}  ({field.what})") for field in fields)
    else:
        lines += ["no summary would leave: no consent to summaries, or no prediction"]
    if noise is not None:
        most, each = noise["epsilon_at_most_a_year"], noise["epsilon"]
        lines += [
            f"noise: what is said is drawn, with epsilon {each} a draw, at delta {noise['delta']}",
            f"  {noise['draws']} draws, epsilon {noise['epsilon_spent']} in all",
            f"  {noise['epsilon_spent_this_year']} within a year, the most {most}",
            f"  unit of privacy: {noise['unit_of_privacy']}",
            f"  neighbours: {noise['neighboring_relation']}",
            *(f"  assumes: {line}" for line in noise["assumptions"]),
        ]
    answer(arguments, data, lines)
    return 0


def _noise(client: EdgeClient, now: datetime) -> dict[str, Any] | None:
    """Say what the noise on reported bands has cost, None where there is none."""
    if client.band_epsilon is None:
        return None
    from privacy.statement import PrivacyStatement

    from ..band_noise import (
        NEIGHBORING_RELATION,
        NOT_COVERED,
        UNIT_OF_PRIVACY,
        most_draws_a_year,
        noise_state,
    )

    state = noise_state(client.store)
    statement = PrivacyStatement(
        unit=UNIT_OF_PRIVACY, neighboring_relation=NEIGHBORING_RELATION, assumptions=(NOT_COVERED,)
    )
    spent, this_year = state.epsilon_spent(), state.epsilon_spent(now=now)
    return {
        "epsilon": f"{float(client.band_epsilon):g}",
        "draws": len(state.draws),
        "epsilon_spent": f"{float(spent):g}",
        "epsilon_spent_this_year": f"{float(this_year):g}",
        "epsilon_at_most_a_year": f"{float(client.band_epsilon * most_draws_a_year()):g}",
        "delta": "0",
        **statement.to_json(),
    }
