"""`gateway`: does this machine stand for its site, and how did the last rounds of the site go?"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from ..errors import StoreBusyError
from .answers import answer, config_file_of, config_of, table

if TYPE_CHECKING:
    import argparse

    from ..gateway.site import GatewaySite

NOT_LET = 1
SILENT_NAMED = 5
STEPS_SHOWN = 10


def add_gateway(gateway: argparse.ArgumentParser) -> None:
    """Add the arguments of `gateway`."""
    gateway.description = (
        "A gateway takes part in the fleet's rounds for the small devices of its site. It is run by"
        " 'fedcell-device node' with gateway-site in the table [node] of the TOML file; this looks"
        " at what it needs, or at what it did."
    )
    gateway.add_argument(
        "what",
        choices=("check", "status"),
        help="check: site file, keys, certificate, broker; status: the last steps",
    )


def run_gateway(arguments: argparse.Namespace) -> int:
    """Check, or tell."""
    return _check(arguments) if arguments.what == "check" else _status(arguments)


def _check(arguments: argparse.Namespace) -> int:
    """Look at all that a gateway needs, and try the broker; code 1 where that lets it say nothing.

    Raises:
        EdgeError: a file is missing or is not this gateway's, or the broker does not answer.
    """
    from ..gateway.site import gateway_site, require_grants

    now = datetime.now(UTC)
    site = gateway_site(_node_config(arguments), now=now)
    require_grants(site, now=now)
    credential, may_say = site.site.credential, _may_say(site)
    data: dict[str, Any] = {
        "gateway": site.gateway,
        "devices": len(site.site.devices),
        "most_devices": credential.most_devices,
        "not_after": credential.not_after.isoformat(),
        "broker": f"{site.host}:{site.port}",
        "tls": site.membership is not None,
        "may_say": may_say,
    }
    until = f"{credential.not_after:%Y-%m-%d}"
    rows = [
        ("gateway", site.gateway),
        ("devices", f"{len(site.site.devices)}, at most {credential.most_devices}, until {until}"),
        ("broker", f"{data['broker']}, {'over TLS' if data['tls'] else 'IN THE CLEAR'}"),
        ("may speak", _words_of(may_say)),
    ]
    if site.membership is not None:
        ends = site.membership.not_after
        data["certificate_until"] = ends.isoformat()
        rows.append(("certificate", f"until {ends:%Y-%m-%d}; renewed before a step"))
    answer(arguments, data, table(rows))
    return NOT_LET if may_say is False else 0


def _words_of(may_say: bool | None) -> str:
    if may_say is None:
        return "a step is going on, or the agent runs: not tried"
    if may_say:
        return "yes: the broker takes what devices shall read"
    return "no: the broker's access list does not know this gateway; see 'fedcell fleet gateway'"


def _may_say(site: GatewaySite) -> bool | None:
    """Try the broker; None where this gateway speaks with it already."""
    from ..gateway.relay import Relay
    from ..link.agent_lock import agent_lock

    try:
        with agent_lock(site.store):
            return Relay(site).may_publish()
    except StoreBusyError:
        return None


def _status(arguments: argparse.Namespace) -> int:
    """Tell the last steps from the gateway's record; nothing is asked of anybody."""
    from ..gateway.record import gateway_folder, read_answered, read_status

    folder = gateway_folder(config_of(arguments).store)
    told, answered = read_status(folder), read_answered(folder)
    steps = told.get("steps", [])
    data = {
        "gateway": told.get("gateway"),
        "steps": steps,
        "answered": dict(answered.last_index),
    }
    if not steps:
        answer(arguments, data, ["no step was answered here yet"])
        return 0
    lines = [line for step in steps[-STEPS_SHOWN:] for line in _step_lines(step)]
    answer(arguments, data, lines)
    return 0


def _step_lines(step: dict[str, Any]) -> list[str]:
    silent = step["silent"]
    which = f"{step['kind']} {step['index']} of {step['stream']}"
    came = f"{step['answered']} of {step['invited']} devices in {step['seconds']:.1f} s"
    lines = [f"{step['at']}  {which}: {came}"]
    if silent:
        more = f" and {len(silent) - SILENT_NAMED} more" if len(silent) > SILENT_NAMED else ""
        lines.append(f"  silent: {', '.join(silent[:SILENT_NAMED])}{more}")
    lines += [f"  refused {count}: {reason}" for reason, count in step["refused"].items()]
    return lines


def _node_config(arguments: argparse.Namespace) -> dict[str, Any]:
    """Return what the gateway's SuperNode is told, as `node` puts it together."""
    from ..node_values import HARDWARE_KEY, POLICY_KEYS_KEY, STORE_KEY
    from ..rounds_node.settings import read_settings

    config, settings = config_of(arguments), read_settings(config_file_of(arguments))
    known = {
        STORE_KEY: config.store,
        HARDWARE_KEY: config.hardware_id_file,
        POLICY_KEYS_KEY: config.server_key,
    }
    named = {name: str(path) for name, path in known.items() if path is not None}
    return {**named, **settings.values}
