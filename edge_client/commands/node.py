"""`node`: take part in the fleet's rounds, as a SuperNode of this device's own."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from .answers import answer, config_file_of, config_of, open_store

if TYPE_CHECKING:
    import argparse
    from collections.abc import Mapping

    from ..config import DeviceConfig
    from ..rounds_node.node import NodeInputs


def add_node(node: argparse.ArgumentParser) -> None:
    """Add the arguments of `node`."""
    node.description = (
        "Run this device's SuperNode until it is stopped: over TLS to the fleet's SuperLink, with"
        " the key that 'join' made, and for the one bundle that the fleet's server pinned. What it"
        " may do is in the table [node] of the TOML file. Where the SuperLink is away, or still"
        " holds a session from before, it waits and tries again."
    )
    node.add_argument(
        "--superlink", metavar="HOST:PORT", help="where nodes meet; none: as the fleet named it"
    )
    node.add_argument(
        "--app-pin", metavar="FILE", help="a signed pin, besides the one that the fleet hands out"
    )


def run_node(arguments: argparse.Namespace) -> int:
    """Run the node."""
    import os
    import signal
    import time
    from datetime import UTC, datetime
    from importlib.util import find_spec
    from random import SystemRandom

    from ..errors import FlowerError
    from ..link.watchdog import Watchdog
    from ..rounds_node.endings import Patience
    from ..rounds_node.node import DeviceNode
    from ..rounds_node.node_folder import held_folder

    config = config_of(arguments)
    if find_spec("flwr") is None:
        raise FlowerError("flwr", "is not installed", "pip install 'fedcell[train]'")
    with open_store(arguments):
        first = _inputs(arguments, config)
    watchdog = Watchdog.of_environment(os.environ, pid=os.getpid())
    with held_folder(config.store) as folder:
        device_node = DeviceNode(
            folder=folder,
            inputs=lambda: _inputs(arguments, config),
            patience=Patience(superlink=first.superlink, jitter=SystemRandom()),
            tell=lambda event, facts: _tell(arguments, event, facts),
            clock=lambda: datetime.now(UTC),
            elapsed_s=time.monotonic,
            watchdog=watchdog,
        )
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: device_node.stop())
        watchdog.ready()
        device_node.run()
    watchdog.stopping()
    return 0


def _inputs(arguments: argparse.Namespace, config: DeviceConfig) -> NodeInputs:
    """Read membership and settings as they are now.

    Raises:
        JoinError: the device has joined no fleet, or its membership is damaged.
        InputError: a setting cannot be used.
    """
    from models.trusted_keys import read_trusted_keys

    from ..errors import JoinError
    from ..provisioning.membership import read_membership
    from ..rounds_node.node import NodeInputs
    from ..rounds_node.node_folder import POLICY_KEYS_FILE, node_folder
    from ..rounds_node.settings import address_of, node_values, read_settings

    settings = read_settings(config_file_of(arguments))
    membership = read_membership(config.store)
    if membership is None:
        remedy = "join one: fedcell-device join URL --token T"
        raise JoinError(config.store, "has joined no fleet", remedy)
    superlink = arguments.superlink or settings.superlink or membership.superlink
    host, port = address_of(superlink)
    server_keys = membership.server_keys
    if config.server_key is not None:
        server_keys = {
            name: key.hex() for name, key in read_trusted_keys(config.server_key).items()
        }
    pin = arguments.app_pin or settings.app_pin
    return NodeInputs(
        superlink=superlink,
        host=host,
        port=port,
        authorities=membership.authorities,
        key=membership.supernode_key,
        server_keys=server_keys,
        pin_file=None if pin is None else Path(pin),
        values=node_values(
            config, settings, policy_keys=node_folder(config.store) / POLICY_KEYS_FILE
        ),
    )


def _tell(arguments: argparse.Namespace, event: str, facts: Mapping[str, object]) -> None:
    from ..rounds_node.pinning import WORDS, BundleRefusal

    match event:
        case "connected":
            line = f"connected to {facts['superlink']} as node {facts['node_id']}"
        case "unpinned":
            line = "no pin of the fleet's server is known yet: every bundle is refused"
        case "waiting":
            line = f"waiting: {facts['what']}"
        case "pinned":
            line = f"runs the pinned bundle {facts['sha256']}"
        case _:
            why = WORDS[BundleRefusal(str(facts["reason"]))]
            line = f"refused the bundle {facts['sha256']}: {why}; nothing of it was run"
    answer(arguments, {"event": event, **facts}, [line])
