"""The bundle and its pin on disk: made anew only where the installed code is another."""

from __future__ import annotations

from datetime import timedelta
from hashlib import sha256
from typing import TYPE_CHECKING

from models.durable_file import write_durably
from models.wire.app_pin import AppPin
from models.wire.codec import decode
from models.wire.envelope import signed_parts, trusted_keys
from models.wire.errors import WireError

from .errors import DeploymentError, DeploymentRefusedError

if TYPE_CHECKING:
    from datetime import datetime

    from models.wire.envelope import SigningKey, VerifyKey

    from .app_bundle import AppBundle
    from .place import Deployment


def pin_of(bundle: AppBundle, before: AppPin | None, *, now: datetime) -> AppPin:
    """Return the pin of a bundle, later than the one before it, whatever the clock says.

    Args:
        bundle: what nodes may run.
        before: the pin that it takes the place of, None for none.
        now: aware time.
    """
    issued = now.replace(microsecond=0)
    if before is not None:
        issued = max(issued, before.issued + timedelta(seconds=1))
    return AppPin(
        app=bundle.app,
        version=bundle.version,
        fab_sha256=bundle.sha256,
        flwr=bundle.flwr,
        issued=issued,
    )


def is_pinned(pin: AppPin | None, bundle: AppBundle) -> bool:
    """Tell whether a pin is of a bundle, so that no other has to be made."""
    return pin is not None and (pin.fab_sha256, pin.version, pin.flwr) == (
        bundle.sha256,
        bundle.version,
        bundle.flwr,
    )


def keep_bundle(
    deployment: Deployment, bundle: AppBundle, key: SigningKey, *, now: datetime
) -> tuple[AppPin, bool]:
    """Write a bundle and its pin, unless they are there; later than the pin of any key before.

    Returns:
        The pin, and whether it was made now: nodes then take this bundle, and no other.

    Raises:
        OSError: the folder or the disk refuses; the pin of before still counts.
    """
    found = read_pin(deployment, key.verify_key)
    if found is not None and is_pinned(found, bundle) and _content(deployment) == bundle.content:
        return found, False
    pin = pin_of(bundle, found or _former_pin(deployment), now=now)
    # The bundle first: a pin whose bundle is missing would stop every run.
    write_durably(deployment.bundle, bundle.content)
    write_durably(deployment.pin, pin.signed(key))
    return pin, True


def read_pin(deployment: Deployment, key: VerifyKey) -> AppPin | None:
    """Return the pin on disk, None where there is none that this key signed."""
    try:
        return AppPin.from_envelope(deployment.pin.read_bytes(), trusted_keys(key))
    except (OSError, WireError):
        return None


def pinned_bundle(deployment: Deployment, key: VerifyKey) -> bytes:
    """Return the bundle that is pinned.

    Raises:
        DeploymentError: it is missing.
        DeploymentRefusedError: the pin is not signed by this key, or is of another bundle.
    """
    remedy = f"write both anew: fedcell rounds deployment {deployment.folder}"
    content, pin = _content(deployment), read_pin(deployment, key)
    if content is None:
        raise DeploymentError(deployment.bundle, "there is no app bundle", remedy)
    if pin is None:
        what = f"is not signed by key {key.key_id}, or is missing"
        raise DeploymentRefusedError(deployment.pin, what, remedy)
    if pin.fab_sha256 != sha256(content).hexdigest():
        raise DeploymentRefusedError(deployment.bundle, "is not the bundle that is pinned", remedy)
    return content


def _former_pin(deployment: Deployment) -> AppPin | None:
    """Return the pin on disk for its time alone, whichever key signed it.

    Nodes that believe both keys keep the later pin: one by a new key has to be that.
    """
    try:
        _, _, payload = signed_parts(deployment.pin.read_bytes())
        return decode(payload, AppPin)
    except (OSError, WireError):
        return None


def _content(deployment: Deployment) -> bytes | None:
    try:
        return deployment.bundle.read_bytes()
    except OSError:
        return None
