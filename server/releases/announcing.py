"""Announcements of releases on the broker, retained, one for each ring that is offered any."""

from __future__ import annotations

import secrets
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Final

from models.wire.announcements import (
    FLEET_RING,
    ReleaseAnnouncement,
    release_topic,
)
from models.wire.codec import encode
from models.wire.envelope import sign_payload

from ..device_configuration import ConfigurationSender, DeviceSettings
from ..storage.configurations import Configurations
from ..storage.releases import Releases
from .desk import OFFERS_COUNTER
from .rings import ring_of

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import datetime

    from models.wire.link import Link

    from ..signer import Signer
    from .desk import ReleaseDesk

ANNOUNCED_COUNTER: Final = "announced"
LIFETIME = timedelta(days=90)
CONFIRM_S = 10.0
SPREAD_S: Final = 4 * 3_600
"""Seconds over which the fleet looks; every other ring looks at once."""


@dataclass(frozen=True, slots=True)
class Announcer:
    """Says on the broker what the desk offers.

    Attributes:
        desk: of the releases.
        link: to the broker, connected.
        signer: signs what the server says.
        spread_s: seconds over which the fleet looks.
        new_id: names messages: 32 hex digits.
    """

    desk: ReleaseDesk
    link: Link
    signer: Signer
    spread_s: int = SPREAD_S
    new_id: Callable[[], str] = lambda: secrets.token_hex(16)

    def announce_news(self, *, now: datetime) -> int:
        """Announce what is offered now, where that was not announced yet.

        What the broker does not confirm is announced again at the next call.

        Returns:
            The number of announcements.
        """
        with self.desk.database.transaction() as connection:
            releases = Releases(connection)
            sequence = releases.counter(OFFERS_COUNTER)
            if sequence <= releases.counter(ANNOUNCED_COUNTER):
                return 0
            rings = [ring.name for ring in releases.rings()]
        said = self._announcements(rings, sequence, now=now)
        waits = [
            self.link.publish(
                release_topic(one.ring),
                sign_payload(encode(one), self.signer.key),
                retain=True,
            )
            for one in said
        ]
        if all(delivery.wait(CONFIRM_S) for delivery in waits):
            with self.desk.database.transaction() as connection:
                Releases(connection).count_up(ANNOUNCED_COUNTER, at_least=sequence)
        return len(said)

    def _announcements(
        self, rings: list[str], sequence: int, *, now: datetime
    ) -> list[ReleaseAnnouncement]:
        issued = now.replace(microsecond=0)
        found = []
        for name, (sha256, said) in self.desk.repository.current().items():
            ring, _, base = name.partition("/")
            spec, _, older = base.removesuffix(".zip").partition("+")
            if older or ring not in rings:
                continue
            found.append(
                ReleaseAnnouncement(
                    id=self.new_id(),
                    sequence=sequence,
                    issued=issued,
                    expires=issued + LIFETIME,
                    ring=ring,
                    release=said["release"],
                    version=said["version"],
                    feature_spec_version=spec,
                    least_client_version=said["least_client_version"],
                    sha256=sha256,
                    num_bytes=said["num_bytes"],
                    spread_s=self.spread_s if ring == FLEET_RING else 0,
                )
            )
        # One topic retains one message: of a ring's specifications the newest release's.
        newest = {one.ring: one for one in sorted(found, key=lambda one: one.release)}
        return list(newest.values())

    def tell_rings(self, *, now: datetime) -> int:
        """Send every device a configuration that was told another ring than it is in.

        Returns:
            How many are told.
        """
        told = 0
        with self.desk.database.transaction() as connection:
            releases = Releases(connection)
            rings = releases.rings()
            sender = ConfigurationSender(connection, self.signer, self.new_id)
            known = Configurations(connection).rings()
            for device_id, _ in releases.spoken():
                ring = ring_of(device_id, rings)
                if known.get(device_id, FLEET_RING) != ring:
                    latest = Configurations(connection).latest(device_id)
                    said = {} if latest is None else latest.settings
                    sender.send(device_id, DeviceSettings(**{**said, "ring": ring}), now=now)
                    told += 1
        return told
