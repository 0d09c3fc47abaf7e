"""What a fleet's Mosquitto is told: its configuration and its access list, as text. No IO.

Why each line stands there is in ADR 0039. Mosquitto's access list says who may publish and what is
delivered to whom; it does not look at subscriptions, and need not: nothing is delivered that may
not be read.

It cannot refuse what is retained, nor count it. What a client can have the broker keep for good is
as much as there are topics that it may write, so none of its lines may leave a part of a topic
free: shards are written out, and the numbers of a gateway's parts.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from models.wire.announcements import RELEASE_FILTERS
from models.wire.codec import MAX_PAYLOAD_BYTES
from models.wire.link import IN_FLIGHT_WINDOW
from models.wire.parts import MOST_PARTS
from models.wire.site_credential import WEIGHTS_FILTER
from models.wire.topics import HUB_CLIENT_ID, PREFIX, Down, Up, shard_of

from ..broker import PACKET_HEADER_BYTES, QUEUED_MESSAGES

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from pathlib import Path

CONFIGURATION_FILE = "mosquitto.conf"
ACCESS_FILE = "access.acl"
PROCESS_FILE = "mosquitto.pid"
DEVICE_AUTHORITIES = "clients.pem"
REVOCATION_FILE = "revoked.crl"
CERTIFICATE_FILE = "broker.pem"
KEY_FILE = "broker.key"
SESSION_DAYS = 14
QUEUED_BYTES = QUEUED_MESSAGES * (MAX_PAYLOAD_BYTES + PACKET_HEADER_BYTES)
"""A site answers its gateway all at once, in the largest messages: what is queued is as many of
them as on any broker, and not fewer bytes."""
MOST_CONNECTIONS = 100_000
MEMORY_BYTES = 2 << 30
"""Beyond it the broker lets nobody in and drops what is said, but lives: without it the system ends
it, and it comes back with all that it kept."""
SHARDS = tuple(f"{number:02x}" for number in range(256))
RELEASES_CLIENT_ID = f"{HUB_CLIENT_ID}-releases"
PROBE_GATEWAY = f"{HUB_CLIENT_ID}-probe-gateway"
PROBE_METER = f"{HUB_CLIENT_ID}-probe-meter"
"""A site of nobody's, by which `check-broker` tries what a gateway may; no device is called so."""
OF_SITES = frozenset({Up.CONTRIBUTION, Up.RECEIPT, Down.ROUND})
"""What passes between a device and its gateway alone."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BrokerPlace:
    """Where a broker listens and runs.

    Attributes:
        folder: of its configuration, absolute.
        host: address to listen at, empty for all.
        port: TCP port for TLS.
        user: as whom it runs, once it has read its files.
    """

    folder: Path
    host: str
    port: int
    user: str


def configuration(place: BrokerPlace) -> str:
    """Return the text of `mosquitto.conf`: one listener, and only for certified names."""
    folder = place.folder
    lines = [
        "# Written by 'fedcell server broker-config'; it writes this anew.",
        f"listener {place.port} {place.host}".rstrip(),
        "protocol mqtt",
        # Who is let in: whoever shows a certificate of the fleet that is not over and not revoked.
        f"cafile {folder / DEVICE_AUTHORITIES}",
        f"certfile {folder / CERTIFICATE_FILE}",
        f"keyfile {folder / KEY_FILE}",
        f"crlfile {folder / REVOCATION_FILE}",
        "tls_version tlsv1.2",
        "require_certificate true",
        "allow_anonymous false",
        # As whom: by the name in the certificate, which is also the client id.
        "use_identity_as_username true",
        "use_username_as_clientid true",
        f"acl_file {folder / ACCESS_FILE}",
        # How much of one.
        f"max_packet_size {MAX_PAYLOAD_BYTES + PACKET_HEADER_BYTES}",
        f"max_inflight_messages {IN_FLIGHT_WINDOW}",
        f"max_queued_messages {QUEUED_MESSAGES}",
        f"max_queued_bytes {QUEUED_BYTES}",
        f"max_connections {MOST_CONNECTIONS}",
        f"memory_limit {MEMORY_BYTES}",
        "max_qos 1",
        "max_topic_alias 0",
        "max_keepalive 3600",
        f"persistent_client_expiration {SESSION_DAYS}d",
        "persistence true",
        f"persistence_location {folder}/",
        "autosave_interval 60",
        "set_tcp_nodelay true",
        "sys_interval 0",
        f"pid_file {folder / PROCESS_FILE}",
        f"user {place.user}",
        "log_dest stderr",
        "log_type error",
        "log_type warning",
        "log_type notice",
        "connection_messages false",
    ]
    return "\n".join(lines) + "\n"


def access_list(
    revoked: Iterable[str] = (), sites: Mapping[str, Sequence[str]] | None = None
) -> str:
    """Return the text of the access list.

    Args:
        revoked: devices that are shut out: what they have connected already falls silent as the
            list is read anew, for a revocation list is only looked at as somebody connects.
        sites: the devices behind each gateway. It alone asks them to take part in rounds and reads
            their answers, which are sealed to it: line by line, for a pattern knows no sites.
    """
    lines = [
        "# Written by 'fedcell server broker-config'; it writes this anew.",
        f"user {HUB_CLIENT_ID}",
        *(f"topic read {PREFIX}/+/d/+/up/{kind.value}" for kind in Up if kind not in OF_SITES),
        *(f"topic write {PREFIX}/+/d/+/dn/{kind.value}" for kind in Down if kind not in OF_SITES),
        "",
        f"user {RELEASES_CLIENT_ID}",
        *(f"topic write {topic}" for topic in RELEASE_FILTERS),
        "",
    ]
    for device in revoked:
        lines += [f"user {device}", "topic deny #", ""]
    for gateway, devices in {PROBE_GATEWAY: (PROBE_METER,), **(sites or {})}.items():
        lines += _site_lines(gateway, devices)
    lines += [
        # The broker goes through them in their order: what is heard first, then by kind, for what
        # devices say often comes before what they say seldom.
        *(f"pattern read {PREFIX}/+/d/%u/dn/{kind.value}" for kind in Down),
        *(f"pattern read {topic}" for topic in RELEASE_FILTERS),
        f"pattern read {WEIGHTS_FILTER}",
        *(
            f"pattern write {PREFIX}/{shard}/d/%u/up/{kind.value}"
            for kind in Up
            for shard in SHARDS
        ),
    ]
    return "\n".join(lines) + "\n"


def _site_lines(gateway: str, devices: Sequence[str]) -> list[str]:
    lines = [f"user {gateway}"]
    for device in devices:
        place = f"{PREFIX}/{shard_of(device)}/d/{device}"
        lines += [f"topic read {place}/up/{kind.value}" for kind in Up if kind in OF_SITES]
        lines += [f"topic write {place}/dn/{kind.value}" for kind in Down if kind in OF_SITES]
    weights = f"{PREFIX}/gateway/{gateway}/weights"
    lines += [f"topic write {weights}/{part}" for part in range(MOST_PARTS)]
    return [*lines, ""]
