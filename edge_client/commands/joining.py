"""`join`: become a member of a fleet with a one-time token."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from ..errors import UsageError
from .answers import answer, config_of, open_store, table

if TYPE_CHECKING:
    import argparse

TOKEN_VARIABLE = "FEDCELL_DEVICE_TOKEN"  # noqa: S105 - the name of a variable


def add_join(join: argparse.ArgumentParser) -> None:
    """Add the arguments of `join`."""
    join.description = (
        "Make keys here, and have the fleet's enrolment service certify them for a one-time token."
        " The keys never leave. Asked again, it goes on where it ended, or says that all is done."
    )
    join.add_argument("address", metavar="URL", help="of the enrolment service, https://HOST:PORT")
    join.add_argument(
        "--token", metavar="T", help=f"one-time token; or in the environment as {TOKEN_VARIABLE}"
    )
    join.add_argument(
        "--ca-fingerprint", metavar="F", help="of the fleet's authority; comes with the token"
    )
    join.add_argument(
        "--anew", action="store_true", help="join although this device has joined already"
    )


def run_join(arguments: argparse.Namespace) -> int:
    """Join, or say that it was done."""
    from ..provisioning.first_boot import add_identity
    from ..provisioning.identity import own_identity
    from ..provisioning.joining import join
    from .identity import hardware_id_of

    config = config_of(arguments)
    hardware_id = hardware_id_of(config)
    with open_store(arguments) as store:
        add_identity(store, hardware_id=hardware_id)
        device_id = store.profile.device_id
        identity = own_identity(store, device_id=device_id, hardware_id=hardware_id)
    token = arguments.token or os.environ.get(TOKEN_VARIABLE, "")
    if identity is None or not token:
        remedy = "give --token T, as 'fedcell fleet token' prints it"
        raise UsageError("join", "has no token", remedy)
    joined = join(
        config.store,
        identity,
        address=arguments.address,
        token=token,
        fingerprint=arguments.ca_fingerprint,
        anew=arguments.anew,
    )
    membership = joined.membership
    data = {
        "device_id": device_id,
        "made": joined.made,
        "service": membership.service,
        "broker": membership.broker,
        "certificate": str(membership.certificate),
        "supernode_key": str(membership.supernode_key),
        "not_after": membership.not_after.isoformat(),
    }
    rows = [
        ("device", device_id),
        ("broker", membership.broker),
        ("certified until", f"{membership.not_after:%Y-%m-%d %H:%M} UTC; the agent renews it"),
        ("SuperNode key", str(membership.supernode_key)),
    ]
    first = "joined" if joined.made else "has joined already; nothing was changed"
    answer(arguments, data, [first, *table(rows)])
    return 0
