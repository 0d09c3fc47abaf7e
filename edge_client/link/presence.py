"""What a device says of itself on the link: that it is there, and what it can run."""

from __future__ import annotations

import os
import re
from typing import TYPE_CHECKING

from models.bundle import CLIENT_VERSION
from models.feature_spec import FEATURE_SPEC_VERSION
from models.telemetry import DeviceId
from models.wire.codec import encode
from models.wire.messages import VERSION, Birth, ModelRefusal, Presence, Status

from .configuration import in_force

if TYPE_CHECKING:
    from datetime import datetime

    from ..store.mailbox import Mailbox
    from ..updates.slots import Refusal

UNNAMED_MODEL = "unnamed"


def birth_payload(
    mailbox: Mailbox,
    *,
    device_id: str,
    model_version: str,
    refusal: Refusal | None,
    now: datetime,
) -> bytes:
    """Return the message that says after connecting what a device can run.

    Args:
        mailbox: of the device.
        device_id: of the device.
        model_version: which model it runs.
        refusal: the model that it was given last and does not run, None where there is none.
        now: the device's time.
    """
    return encode(
        Birth(
            id=os.urandom(16).hex(),
            device=DeviceId(device_id),
            sequence=mailbox.next_sequence("birth", now=now),
            issued=now.replace(microsecond=0),
            client_version=".".join(map(str, CLIENT_VERSION)),
            model_version=model_version,
            feature_spec_version=FEATURE_SPEC_VERSION,
            refused_model=None if refusal is None else _version_of(refusal.version),
            refused_because=None if refusal is None else _reason_of(refusal.reason),
            configuration_sequence=in_force(mailbox).get("sequence"),
        )
    )


def status_payload(mailbox: Mailbox, presence: Presence, device_id: str, now: datetime) -> bytes:
    """Return the message that says whether this device is connected."""
    return encode(
        Status(
            id=os.urandom(16).hex(),
            device=DeviceId(device_id),
            sequence=mailbox.next_sequence("status", now=now),
            issued=now.replace(microsecond=0),
            presence=presence,
        )
    )


def _version_of(text: str) -> str:
    # What a refused bundle calls itself may be anything.
    is_version = len(text) <= VERSION.max_length and re.fullmatch(VERSION.pattern, text)
    return text if is_version else UNNAMED_MODEL


def _reason_of(code: str) -> ModelRefusal:
    try:
        return ModelRefusal(code)
    except ValueError:
        return ModelRefusal.OTHER
