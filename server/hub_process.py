"""One hub process put together: database, key, link and hub, for as long as a context lasts."""

from __future__ import annotations

from contextlib import contextmanager
from random import SystemRandom
from typing import TYPE_CHECKING

from models.wire.link import Link, LinkSettings
from models.wire.topics import HUB_CLIENT_ID

from .device_keys import DeviceKeyFile
from .enrolled_keys import EnrolledKeys
from .hub import Hub, HubPolicy
from .signer import load_signer
from .storage.database import open_database

if TYPE_CHECKING:
    from collections.abc import Iterator
    from random import Random

    from .clock import Clock
    from .config import ServerConfig

KEEP_ALIVE_S = 60
LONGEST_WAIT_S = 30.0
"""There is one hub, and nothing works without it: it comes back sooner than devices do."""


def broker_link(config: ServerConfig, *, client_id: str, jitter: Random) -> Link:
    """Return a link of the server's to its broker, not connected yet.

    Args:
        config: the settings.
        client_id: begins with the hub's, which no device may bear.
        jitter: spreads waits.

    Raises:
        SettingError: the broker's address, or how to speak TLS to it, cannot be used.
    """
    host, port = config.broker_address()
    tls = config.broker_tls()
    return Link(
        LinkSettings(
            host=host,
            port=port,
            client_id=client_id,
            keep_alive_s=KEEP_ALIVE_S,
            longest_wait_s=LONGEST_WAIT_S,
            tls=None if tls is None else lambda: tls,
        ),
        jitter=jitter,
    )


@contextmanager
def connected_hub(config: ServerConfig, *, clock: Clock) -> Iterator[Hub]:
    """Open the database, read the key, connect, and give a hub that hears; `run` makes it send.

    Args:
        config: the settings.
        clock: the time.

    Raises:
        StorageError: the database cannot be used.
        KeyFileError: the key, or the file of device keys, cannot be used.
        LinkError: the broker cannot be reached.
    """
    jitter = SystemRandom()
    link = broker_link(config, client_id=HUB_CLIENT_ID, jitter=jitter)
    signer = load_signer(config.key)
    file = None if config.device_keys is None else DeviceKeyFile(config.device_keys)
    with open_database(config.db) as database:
        # Behind TLS is a fleet that enrols: whoever is not enrolled is sent nothing.
        device_keys = file if link.settings.tls is None else EnrolledKeys(database, file)
        hub = Hub(
            database=database,
            link=link,
            signer=signer,
            clock=clock,
            policy=HubPolicy(
                notices=config.notice_policy(),
                delivery=config.delivery_policy(),
                human_contact=config.human_contact,
            ),
            jitter=jitter,
            device_keys=device_keys,
        )
        with link:
            yield hub
