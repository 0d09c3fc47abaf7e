"""`fedcell privacy ledger`: what was released, what it cost, what is left; verified."""

from __future__ import annotations

import getpass
import json
import platform
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from collections.abc import Mapping

LAST_SHOWN = 10

Home = Annotated[
    Path, typer.Option(help="Folder of a privacy home, or of a run that has none besides.")
]
Delta = Annotated[float, typer.Option(min=1e-300, max=1e-5, help="δ at which ε is told.")]
Repair = Annotated[bool, typer.Option("--repair", help="Cut a last line that a crash left torn.")]
Rebuild = Annotated[
    bool,
    typer.Option(
        "--rebuild-counts", help="Make lost counts anew, with every device charged the worst case."
    ),
]
Head = Annotated[
    str,
    typer.Option(
        help="Hash of the ledger's newest entry, as the newest run.json has it under home_head: "
        "--rebuild-counts and --accept-moved need it, and --repair where the counts are gone."
    ),
]
AcceptMoved = Annotated[
    bool,
    typer.Option(
        "--accept-moved", help="Take over a moved home that holds the newest entry; streams end."
    ),
]
ClearSaid = Annotated[
    list[str] | None,
    typer.Option(
        "--clear-said",
        metavar="DEVICE",
        help="Take back what was said for a device by a node that lied; may be given again.",
    ),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object.")]


def ledger(
    home: Home = Path(),
    delta: Delta = 1e-8,
    repair: Repair = False,
    rebuild_counts: Rebuild = False,
    head: Head = "",
    accept_moved: AcceptMoved = False,
    clear_said: ClearSaid = None,
    as_json: AsJson = False,
) -> None:
    """Show and verify a ledger of releases: every release, who took part, what is left.

    Ends with code 5 if the chain does not verify, or if ledger and counts do not agree. Devices are
    counted, never named. The options that change something forget nothing of what was released.
    """
    from ..privacy_home.cleared_words import clear_said as clear
    from ..privacy_home.cleared_words import read_operations
    from ..privacy_home.home_repair import charge_everyone, cut_torn_line, take_over
    from ..privacy_home.ledger_report import home_report

    for option, is_given in (
        ("--rebuild-counts", rebuild_counts),
        ("--accept-moved", accept_moved),
        ("--clear-said", bool(clear_said)),
    ):
        if is_given and not head:
            raise typer.BadParameter("give --head HASH with it", param_hint=option)
    if repair:
        cut = cut_torn_line(home, now=datetime.now(UTC), head=head)
        _say(f"cut {cut} bytes of a torn line")
    if rebuild_counts:
        _say(f"charged every device for {charge_everyone(home, head=head)} releases")
    if accept_moved:
        _say(f"taken over; {take_over(home, head=head)} streams that were open here have ended")
    if clear_said:
        now, who = datetime.now(UTC), f"{getpass.getuser()}@{platform.node()}"
        cleared = clear(home, clear_said, head=head, asked_by=who, now=now)
        _say(f"cleared what was said for {len(cleared)} of {len(set(clear_said))} devices")
    report = home_report(home, delta=delta) | {"operations": read_operations(home)}
    print(json.dumps(report) if as_json else "\n".join(ledger_lines(report)))


def ledger_lines(report: Mapping[str, Any]) -> list[str]:
    """Say what a ledger holds, in lines for a person.

    Args:
        report: as `home_report` makes it.
    """
    released = "unbounded: a real stream ran without noise"
    if report["epsilon_release"] is not None:
        released = f"{report['epsilon_release']:.3f} at δ = {report['delta']:g}"
    lines = [
        f"ledger       {report['entries']} entries, chain verified, head {_head(report)}",
        f"ε_release    {released}",
        f"             unit: {report['unit_of_privacy']}",
        f"             neighbours: {report['neighboring_relation']}",
        *(f"             assumes: {one}" for one in report["assumptions"]),
        "ε_server     unbounded: the operator sees clipped updates",
    ]
    if report["never_released"]:
        lines.append(
            f"not counted  {report['never_released']} entries of comparisons or simulations: the "
            "registry refuses what was made from them"
        )
    lines += _participant_lines(report["participants"])
    lines += [
        f"operator     {one['at']:.19}: {one['asked_by']} cleared what was said for "
        f"{len(one['said'])} devices"
        for one in report.get("operations", ())
        if one.get("what") == "words_cleared"
    ]
    for stream in report["streams"]:
        lines.append(
            f"stream       {stream['stream']} ({stream['kind']}, {stream['mechanism']}): "
            f"{stream['releases']} releases, {stream['noise_only']} of them noise alone, "
            f"σ = {stream['noise_multiplier']:.3f}{_of_bits(stream)}, "
            f"n = {stream['cohort_size']:,}, "
            f"at most {stream['most_participations']} participations of a device"
        )
    shown = report["releases"][-LAST_SHOWN:]
    if len(shown) < report["entries"]:
        lines.append(f"releases     the last {len(shown)} of {report['entries']}; all with --json")
    lines += [_release_line(release) for release in shown]
    return lines


def _of_bits(stream: Mapping[str, Any]) -> str:
    sigma = stream["clip_noise_multiplier"]
    return "" if sigma is None else f" and {sigma:.3f} on bits, C adapts"


def _head(report: Mapping[str, Any]) -> str:
    return "none" if report["head"] is None else f"{report['head'][:16]}…"


def _participant_lines(found: Mapping[str, Any] | None) -> list[str]:
    if found is None:
        return ["devices      not counted here: a ledger from before there were counts"]
    invited = ", ".join(
        f"{number:,} × {times}" for times, number in found["by_participations"].items()
    )
    lines = [f"devices      {found['devices']:,}; devices × participations: {invited or 'none'}"]
    if found["most_mu_squared"] is not None:
        of = "" if found["mu_squared_limit"] is None else f" of {found['mu_squared_limit']:.4g}"
        lines.append(
            f"spent        μ² {found['most_mu_squared']:.4g}{of} by the device charged most: "
            f"updates {found['updates_mu_squared']:.4g}, counts {found['counts_mu_squared']:.4g}"
        )
    if found["mu_squared_left"] is not None:
        lines.append(
            f"left         μ² {found['mu_squared_left']:.4g} to the device that has least left"
        )
    if found["epsilon_said"] is not None:
        lines.append(
            f"devices say  ε {found['epsilon_said']:.3f} at the same δ, more than this home "
            f"counts: one says that it has spent μ² {found['said_mu_squared']:.4g}"
        )
    return lines


def _release_line(release: Mapping[str, Any]) -> str:
    event = release["event"]
    named = event.get("stream") or event.get("channel") or ""
    step = f" step {event['index']}" if "index" in event else ""
    alone = ", noise alone" if event.get("noise_only") else ""
    at = release["at"][:19]
    cost = "unbounded" if release["mu_squared"] is None else f"{release['mu_squared']:.4g}"
    what = f"{event['type']} {named}{step}{alone}, μ² {cost} to each device asked"
    return f"  {release['index']:>5}  {at}  {release['kind']:<10} {what}  {release['hash'][:12]}"


def _say(line: str) -> None:
    typer.echo(line, err=True)
