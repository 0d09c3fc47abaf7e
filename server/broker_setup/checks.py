"""What is tried at a broker, and what each answer means. No IO.

A check is one attempt of somebody who should not succeed, and a few of somebody who should: a
broker that refuses everything is not safe, it is dead.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Verdict(StrEnum):
    """What an attempt showed."""

    SAFE = "safe"
    UNSAFE = "unsafe"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True, kw_only=True)
class Attempt:
    """One thing that is tried.

    Attributes:
        name: of the check.
        tried: what is done, in a few words.
        remedy: what to do where it shows the broker unsafe.
    """

    name: str
    tried: str
    remedy: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """What came of an attempt.

    Attributes:
        attempt: what was tried.
        verdict: what it showed.
        seen: what happened, in a few words.
    """

    attempt: Attempt
    verdict: Verdict
    seen: str

    def to_json(self) -> dict[str, str]:
        """Return it for machines."""
        return {
            "name": self.attempt.name,
            "tried": self.attempt.tried,
            "verdict": self.verdict.value,
            "seen": self.seen,
            "remedy": "" if self.verdict is Verdict.SAFE else self.attempt.remedy,
        }


_WRITE = "write the configuration anew: fedcell server broker-config --out DIR --reload"

PLAIN_TEXT = Attempt(
    name="plain-text",
    tried="MQTT without TLS on this port, on 1883 and on those of --also-port",
    remedy="remove every listener without TLS from the configuration",
)
MORE_PORTS = Attempt(
    name="more-ports",
    tried="no certificate, or a rogue authority's, on the ports of --also-port",
    remedy="remove every listener that the fleet's configuration does not name",
)
OLD_TLS = Attempt(
    name="old-tls",
    tried="TLS 1.1",
    remedy=f"tls_version tlsv1.2; {_WRITE}",
)
NO_CERTIFICATE = Attempt(
    name="no-certificate",
    tried="connecting without a certificate",
    remedy=f"require_certificate true, allow_anonymous false; {_WRITE}",
)
ROGUE_AUTHORITY = Attempt(
    name="rogue-authority",
    tried="a certificate by an authority of the same name and another key",
    remedy=f"cafile must name the fleet's authorities alone; {_WRITE}",
)
EXPIRED = Attempt(
    name="expired-certificate",
    tried="a certificate of the fleet that is over",
    remedy="check the clock of the broker's machine, and that it is Mosquitto 2 or later",
)
REVOKED = Attempt(
    name="revoked-certificate",
    tried="a certificate of the fleet that is revoked",
    remedy=f"crlfile must be there and up to date; {_WRITE}",
)
CLIENT_ID = Attempt(
    name="client-id-theft",
    tried="one device connects under another's client id",
    remedy=f"use_identity_as_username and use_username_as_clientid true; {_WRITE}",
)
PUBLISH = Attempt(
    name="cross-device-publish",
    tried="one device publishes as another, and to another",
    remedy=f"acl_file with patterns of %u; {_WRITE}",
)
SUBSCRIBE = Attempt(
    name="cross-device-subscribe",
    tried="one device listens to what another says",
    remedy=f"acl_file with patterns of %u; {_WRITE}",
)
SHARED = Attempt(
    name="shared-subscription",
    tried="one device joins a shared subscription to what others say",
    remedy=f"acl_file with patterns of %u; {_WRITE}",
)
RELEASE = Attempt(
    name="forged-release",
    tried="one device announces a release",
    remedy=f"acl_file: the server alone may write releases; {_WRITE}",
)
WEIGHTS = Attempt(
    name="forged-weights",
    tried="one device says what a gateway's devices train on",
    remedy=f"acl_file: a gateway alone may write its weights; {_WRITE}",
)
ROUND = Attempt(
    name="forged-round",
    tried="one device asks another to take part in a round",
    remedy=f"acl_file: a device's gateway alone may write its rounds; {_WRITE}",
)
OTHER_SITE = Attempt(
    name="other-site",
    tried="a gateway listens and speaks to the devices of another site",
    remedy=f"acl_file: a gateway is granted its own devices, one by one; {_WRITE}",
)
FREE_TOPICS = Attempt(
    name="free-topics",
    tried="a device and a gateway write topics without number, each of which may be retained",
    remedy=f"acl_file: shards, kinds and parts written out, no + and no # for them; {_WRITE}",
)
SYSTEM = Attempt(
    name="system-topics",
    tried="one device reads $SYS",
    remedy=f"acl_file must not grant $SYS; {_WRITE}",
)
PACKET_SIZE = Attempt(
    name="packet-size",
    tried="a packet of 256 KB",
    remedy=f"max_packet_size; {_WRITE}",
)
OWN_TOPICS = Attempt(
    name="own-topics",
    tried="a device speaks on its own topics, and may listen to its own",
    remedy=f"a broker that lets nobody in is of no use; {_WRITE}",
)


def is_safe(findings: tuple[Finding, ...]) -> bool:
    """Tell whether everything that was tried showed the broker safe."""
    return all(one.verdict is Verdict.SAFE for one in findings)
