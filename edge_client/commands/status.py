"""`status`: what this device is, holds, runs, sends and may do, in one look."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from ..errors import IdentityError, SlotError
from .answers import answer, config_of, moment_flag, now_of, open_store, table

if TYPE_CHECKING:
    import argparse

    from ..config import DeviceConfig
    from ..telemetry_store import TelemetryStore

TRAFFIC_DAYS = 30


def add_status(status: argparse.ArgumentParser) -> None:
    """Add the arguments of `status`."""
    status.add_argument("--now", type=moment_flag, metavar="TIME", help="the device's time")


def run_status(arguments: argparse.Namespace) -> int:
    """Show it; nothing is changed, sent or predicted."""
    config, now = config_of(arguments), now_of(arguments)
    with open_store(arguments) as store:
        data = {
            "device_id": str(store.profile.device_id),
            "identity": _identity(store, config),
            "fleet": _fleet(store, now=now),
            "node": _node(store),
            "store": _store(store),
            "model": _model(store),
            "last_prediction": store.fact("last_prediction"),
            "link": _link(store, config, now=now),
            "consents": _consents(store),
            "training": _training(store),
            "gateway_rounds": _gateway_rounds(store, config),
            "configuration": _configuration(store),
            "refused": {
                "readings": store.refusals(),
                "messages": dict(store.fact("refused_messages") or {}),
            },
        }
    answer(arguments, data, _lines(data))
    return 0


def _identity(store: TelemetryStore, config: DeviceConfig) -> dict[str, Any]:
    from ..provisioning.identity import own_identity
    from .identity import hardware_id_of

    try:
        identity = own_identity(
            store, device_id=store.profile.device_id, hardware_id=hardware_id_of(config)
        )
    except IdentityError as error:
        return {"state": "refused", "what": str(error)}
    if identity is None:
        return {"state": "none", "what": "notices are not sealed; fedcell-device init --identity"}
    is_bound = identity.hardware is not None
    what = "bound to this hardware" if is_bound else "this hardware says no identifier"
    return {"state": "bound" if is_bound else "not_bound", "what": what}


def _fleet(store: TelemetryStore, *, now: datetime) -> dict[str, Any]:
    from ..errors import JoinError
    from ..provisioning.membership import read_membership

    try:
        found = read_membership(store.path)
    except JoinError as error:
        return {"state": "damaged", "what": str(error)}
    if found is None:
        return {"state": "none", "what": "has joined no fleet; fedcell-device join"}
    return {
        "state": "joined" if now < found.not_after else "over",
        "what": f"{found.broker}, certified until {found.not_after:%Y-%m-%d}",
        "broker": found.broker,
        "service": found.service,
        "not_after": found.not_after.isoformat(),
    }


def _node(store: TelemetryStore) -> dict[str, Any] | None:
    from dataclasses import asdict

    from ..rounds_node.node_folder import read_state_of_node

    said = read_state_of_node(store.path)
    return None if said is None else asdict(said)


def _store(store: TelemetryStore) -> dict[str, Any]:
    return {
        "path": str(store.path),
        "bytes": store.path.stat().st_size,
        "readings": store.num_readings(),
        "sealed": store.is_sealed,
        "read_only": store.is_read_only,
        "disk_full": store.is_alone,
    }


def _model(store: TelemetryStore) -> dict[str, Any]:
    from dataclasses import asdict

    from ..model_store import ModelStore

    models = ModelStore.beside(store.path)
    try:
        installed, refusal = models.installed(), models.last_refusal()
        on_trial = models.is_on_trial()
    except SlotError as error:
        return {"installed": None, "on_trial": False, "last_refusal": None, "what": str(error)}
    return {
        "installed": None if installed is None else installed.version,
        "on_trial": on_trial,
        "last_refusal": None if refusal is None else asdict(refusal),
    }


def _link(store: TelemetryStore, config: DeviceConfig, *, now: datetime) -> dict[str, Any]:
    from ..link.traffic import SECONDS_PER_DAY, day_of, is_caused_here

    today = day_of(now)
    passed = store.traffic(today - TRAFFIC_DAYS + 1)
    passed_today = [one for one in passed if one.day == today]
    caused = sum(one.num_bytes for one in passed_today if is_caused_here(one.direction, one.kind))
    return {
        "connected_at": store.fact("connected_at"),
        "waiting": len(store.outbox()),
        "bytes_today": sum(one.num_bytes for one in passed_today),
        "bytes_per_day": config.bytes_per_day,
        "is_over_budget": caused >= config.bytes_per_day,
        "traffic": [
            {
                "day": f"{datetime.fromtimestamp(one.day * SECONDS_PER_DAY, UTC):%Y-%m-%d}",
                "direction": one.direction,
                "kind": one.kind,
                "messages": one.messages,
                "bytes": one.num_bytes,
            }
            for one in passed
        ],
    }


def _consents(store: TelemetryStore) -> dict[str, Any]:
    from ..link.configuration import allowed

    return {
        purpose.value: {"granted": said.granted, "in_force": allowed(store, purpose)}
        for purpose, said in store.consents().items()
    }


def _training(store: TelemetryStore) -> dict[str, Any]:
    from .ledger import training_json

    return training_json(store)


def _gateway_rounds(store: TelemetryStore, config: DeviceConfig) -> dict[str, Any]:
    from ..site_rounds.telling import rounds_told

    return rounds_told(store, config)


def _gateway_words(told: dict[str, Any]) -> str:
    from ..site_rounds.telling import rounds_words

    return rounds_words(told)


def _configuration(store: TelemetryStore) -> dict[str, Any] | None:
    from ..link.configuration import in_force, stopped

    said = in_force(store)
    if not said:
        return None
    return {
        "sequence": said["sequence"],
        "received_at": said["received_at"],
        "stopped": list(stopped(store)),
        "predict_every_h": said.get("predict_every_h"),
    }


def _lines(data: dict[str, Any]) -> list[str]:
    store, model, link = data["store"], data["model"], data["link"]
    predicted, configuration = data["last_prediction"], data["configuration"]
    consents = [
        f"{name}{'' if said['in_force'] else ' (stopped from afar)'}"
        for name, said in data["consents"].items()
        if said["granted"]
    ]
    refused = data["refused"]["readings"] | data["refused"]["messages"]
    return table(
        [
            ("device", data["device_id"]),
            ("identity", f"{data['identity']['state']}: {data['identity']['what']}"),
            ("fleet", f"{data['fleet']['state']}: {data['fleet']['what']}"),
            ("node", _node_words(data["node"])),
            ("store", _store_words(store)),
            ("model", _model_words(model)),
            ("refused model", _refusal_words(model["last_refusal"])),
            ("prediction", _prediction_words(predicted)),
            ("connected", link["connected_at"] or "never yet"),
            ("waiting", f"{link['waiting']} messages"),
            ("today", f"{link['bytes_today']} of {link['bytes_per_day']} bytes"),
            ("consents", ", ".join(consents) or "none"),
            ("training", _training_words(data["training"])),
            ("gateway", _gateway_words(data["gateway_rounds"])),
            ("configuration", _configuration_words(configuration)),
            ("refused", ", ".join(f"{why} {count}" for why, count in refused.items()) or "nothing"),
        ]
    )


def _store_words(store: dict[str, Any]) -> str:
    words = f"{store['path']}, {store['bytes']} bytes, {store['readings']} readings"
    if store["sealed"]:
        words += ", sealed"
    if store["read_only"]:
        words += ", on a read-only disk: nothing can be recorded"
    if store["disk_full"]:
        words += ", on a full disk: nothing can be recorded"
    return words


def _node_words(node: dict[str, Any] | None) -> str:
    if node is None:
        return "never ran here; fedcell-device node"
    words = f"{node['state']} since {node['since']}, SuperLink {node['superlink']}"
    if node["what"]:
        words += f": {node['what']}"
    if (refused := node["refused"]) is not None:
        words += f"; refused the bundle {refused['sha256'][:12]}…: {refused['reason']}"
    return words


def _training_words(training: dict[str, Any]) -> str:
    words, refusal = str(training["words"]), training["last_refusal"]
    if refusal is not None:
        words += f" Last refused: {refusal['reason']}, {refusal['at']}"
    if (sat_out := training["last_sat_out"]) is not None:
        words += f" Last sat out: {', '.join(sat_out['reasons'])}, {sat_out['at']}"
    return words


def _model_words(model: dict[str, Any]) -> str:
    if "what" in model:
        return str(model["what"])
    return f"{model['installed'] or 'default'}{' (on trial)' if model['on_trial'] else ''}"


def _refusal_words(refusal: dict[str, Any] | None) -> str:
    if refusal is None:
        return "none"
    return f"{refusal['version'] or 'of unknown version'}: {refusal['reason']}"


def _prediction_words(predicted: dict[str, Any] | None) -> str:
    if predicted is None:
        return "none by the agent yet"
    what = predicted["urgency"] or predicted["status"]
    return f"{predicted['at']}, {what} (model {predicted['model_version']})"


def _configuration_words(configuration: dict[str, Any] | None) -> str:
    if configuration is None:
        return "none: everything is as the owner agreed"
    hours = configuration["predict_every_h"]
    words = [f"{name} stopped" for name in configuration["stopped"]]
    words += [] if hours is None else [f"a prediction every {hours} h"]
    return f"{', '.join(words) or 'as the owner agreed'} (since {configuration['received_at']})"
