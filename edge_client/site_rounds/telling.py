"""What a device tells its owner and a support engineer of rounds behind a gateway.

What was given, and what it cost, stands in the privacy ledger, as for any other round. Here stands
how far the last step came, and what keeps a device from taking part at all.
"""

from __future__ import annotations

from datetime import UTC, datetime
from enum import StrEnum
from typing import TYPE_CHECKING, Any

from models.errors import ModelsError
from models.wire.codec import MAX_PAYLOAD_BYTES
from models.wire.contribution import ContributionForm, StepKind
from models.wire.topics import Up, up

from ..errors import EdgeError
from ..link.configuration import stopped
from ..link.traffic import publish_bytes
from ..provisioning.identity import read_identity
from ..store.mailbox import Purpose
from .kept_step import kept_step

if TYPE_CHECKING:
    from ..config import DeviceConfig
    from ..telemetry_store import TelemetryStore


class Lacking(StrEnum):
    """What keeps a device from taking part in rounds behind a gateway."""

    TURNED_OFF = "turned_off"
    NO_IDENTITY = "no_identity"
    NO_SERVER_KEYS = "no_server_keys"
    NO_CONSENT = "no_consent"
    STOPPED = "stopped"
    TOO_FEW_BYTES = "too_few_bytes"
    NO_GATEWAY_HEARD = "no_gateway_heard"


REMEDIES = {
    Lacking.TURNED_OFF: "turned off; run it with --gateway-rounds on",
    Lacking.NO_IDENTITY: "this device has no keys to sign with; fedcell-device init --identity",
    Lacking.NO_SERVER_KEYS: "no key can verify a gateway; join a fleet, or give --server-key FILE",
    Lacking.NO_CONSENT: "the owner has not agreed; fedcell-device consent grant training",
    Lacking.STOPPED: "training is stopped by the server's configuration",
    Lacking.TOO_FEW_BYTES: "bytes_per_day holds no answer; an update takes {bytes} bytes",
    Lacking.NO_GATEWAY_HEARD: "no gateway has offered anything yet",
}


def update_traffic(device_id: str) -> int:
    """Return how many bytes an update takes on the wire, all its parts counted as full ones."""
    from models.network_shape import NUM_WEIGHTS

    form = ContributionForm(kind=StepKind.UPDATE, num_entries=NUM_WEIGHTS + 1)
    return form.num_parts * publish_bytes(up(device_id, Up.CONTRIBUTION), MAX_PAYLOAD_BYTES)


def what_lacks(store: TelemetryStore, config: DeviceConfig) -> tuple[Lacking, ...]:
    """Return what keeps a device from taking part, the first to mend first; empty where nothing.

    Args:
        store: of the device, open.
        config: of the process.
    """
    device_id = str(store.profile.device_id)
    found = {
        Lacking.TURNED_OFF: config.gateway_rounds != "on",
        Lacking.NO_IDENTITY: not _has_identity(store),
        Lacking.NO_SERVER_KEYS: not _has_server_keys(config),
        Lacking.NO_CONSENT: not store.consents()[Purpose.TRAINING].granted,
        Lacking.STOPPED: Purpose.TRAINING.value in stopped(store),
        Lacking.TOO_FEW_BYTES: config.bytes_per_day < update_traffic(device_id),
        Lacking.NO_GATEWAY_HEARD: kept_step(store) is None,
    }
    return tuple(lacking for lacking, is_so in found.items() if is_so)


def rounds_told(store: TelemetryStore, config: DeviceConfig) -> dict[str, Any]:
    """Return what `fedcell-device status` says of rounds behind a gateway.

    Args:
        store: of the device, open.
        config: of the process.
    """
    kept = kept_step(store)
    last: dict[str, Any] | None = None
    if kept is not None:
        last = {
            "kind": kept.step.kind.value,
            "stream": kept.step.stream,
            "index": kept.step.index,
            "gateway": kept.gateway,
            "state": kept.state.value,
            "ending": None if kept.ending is None else kept.ending.value,
            "offered_at": _moment(kept.received.wall_s),
        }
    return {
        "is_on": config.gateway_rounds == "on",
        "lacking": [lacking.value for lacking in what_lacks(store, config)],
        "last_step": last,
        "update_bytes": update_traffic(str(store.profile.device_id)),
    }


def rounds_words(told: dict[str, Any]) -> str:
    """Return it in a line.

    Args:
        told: from `rounds_told`.
    """
    if not told["is_on"] and told["last_step"] is None:
        return "off"
    lacking = [REMEDIES[Lacking(one)].format(bytes=told["update_bytes"]) for one in told["lacking"]]
    last = told["last_step"]
    if last is not None:
        how = last["ending"] or last["state"]
        step = f"step {last['index']} of {last['stream']}"
        lacking.insert(0, f"last {step}: {how} ({last['gateway']}, {last['offered_at']})")
    return "; ".join(lacking)


def _has_identity(store: TelemetryStore) -> bool:
    try:
        return read_identity(store.path) is not None
    except EdgeError:
        return False


def _has_server_keys(config: DeviceConfig) -> bool:
    from models.trusted_keys import read_trusted_keys

    from ..provisioning.membership import read_membership

    try:
        if config.server_key is not None:
            return bool(read_trusted_keys(config.server_key))
        membership = read_membership(config.store) if config.wants_tls() else None
    except (EdgeError, ModelsError):
        return False
    return membership is not None and bool(membership.server_keys)


def _moment(wall_s: float) -> str | None:
    try:
        return datetime.fromtimestamp(wall_s, UTC).isoformat(timespec="seconds")
    except (ValueError, OverflowError, OSError):
        return None
