"""Everything that is tried at a broker that runs, one attempt after the other."""

from __future__ import annotations

import shutil
import time
from typing import TYPE_CHECKING

from models.wire import topics
from models.wire.announcements import RELEASE_FILTERS
from models.wire.errors import LinkError

from . import checks
from .checks import Attempt, Finding, Verdict
from .probes import SILENCE_S, WAIT_S, Prober, counting, private_folder, wait_for
from .site_check import check_sites, free_topics

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from datetime import datetime
    from pathlib import Path

    from models.wire.link_settings import LinkTls

    from ..authority.home import AuthorityHome
    from .probes import ProbeDevice

PLAIN_PORT = 1883
_SAID = 5
SYSTEM_TOPICS = "$SYS/#"


def check_broker(
    home: AuthorityHome,
    *,
    host: str,
    port: int,
    scratch: Path,
    now: datetime,
    more_ports: Sequence[int] = (),
) -> tuple[Finding, ...]:
    """Try everything at a broker.

    Args:
        home: the fleet's authorities, which make certificates for probes.
        host: the broker's name or address, as its certificate bears it.
        port: its TCP port for TLS.
        scratch: existing folder, for certificates of probes; nothing stays in it.
        now: aware time.
        more_ports: at which the same broker may listen, too: whether it lets anybody in there.

    Raises:
        LinkError: no probe with a good certificate is let in; then nothing can be said.
    """
    folder = private_folder(scratch)
    try:
        prober = Prober(host, port, folder, home, now)
        one, two = prober.device(number=1), prober.device(number=2)
        # Says why where the broker is not there, or is another fleet's.
        with prober.link(one.device_id, one.tls):
            pass
        return (
            _plain_text(prober, more_ports),
            _old_tls(prober),
            *_entrance(prober),
            *([_more_ports(prober, more_ports)] if more_ports else []),
            _client_id(prober, one, two),
            *_speaking(prober, one, two),
            _hearing(prober, checks.SUBSCRIBE, one, two, two.up()),
            _hearing(prober, checks.SUBSCRIBE, one, two, "#"),
            _hearing(prober, checks.SHARED, one, two, f"$share/probe/{_everything()}"),
            *check_sites(prober, one, two),
            free_topics(prober, one),
            _system(prober, one),
            _packet_size(prober, one),
        )
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _plain_text(prober: Prober, more_ports: Sequence[int]) -> Finding:
    tried = dict.fromkeys((prober.port, PLAIN_PORT, *more_ports))
    let_in = [port for port in tried if prober.lets_in("probe-plain", None, port=port)]
    seen = f"let in on port {_listed(let_in)}" if let_in else f"refused on {_listed(tried)}"
    return _found(checks.PLAIN_TEXT, is_safe=not let_in, seen=seen)


def _more_ports(prober: Prober, more_ports: Sequence[int]) -> Finding:
    nobody, rogue = prober.nobody(), prober.rogue("probe-rogue")
    let_in = [
        port
        for port in dict.fromkeys(more_ports)
        if prober.lets_in("probe-nobody", nobody, port=port)
        or prober.lets_in("probe-rogue", rogue, port=port)
    ]
    seen = f"let in on port {_listed(let_in)}" if let_in else f"refused on {_listed(more_ports)}"
    return _found(checks.MORE_PORTS, is_safe=not let_in, seen=seen)


def _listed(ports: Iterable[int]) -> str:
    return ", ".join(map(str, ports))


def _old_tls(prober: Prober) -> Finding:
    agreed = prober.speaks_tls_1_1()
    if agreed is None:
        what = "this machine cannot ask"
        return Finding(attempt=checks.OLD_TLS, verdict=Verdict.UNKNOWN, seen=what)
    return _found(checks.OLD_TLS, is_safe=not agreed, seen="agreed on" if agreed else "refused")


def _entrance(prober: Prober) -> tuple[Finding, ...]:
    rogue = "probe-rogue"
    shown: tuple[tuple[Attempt, str, Callable[[], LinkTls]], ...] = (
        (checks.NO_CERTIFICATE, "probe-nobody", prober.nobody),
        (checks.ROGUE_AUTHORITY, rogue, lambda: prober.rogue(rogue)),
        (checks.EXPIRED, "probe-expired", prober.expired),
        (checks.REVOKED, "probe-revoked", prober.revoked),
    )
    return tuple(_let_in(prober, attempt, name, make()) for attempt, name, make in shown)


def _let_in(prober: Prober, attempt: Attempt, name: str, tls: LinkTls) -> Finding:
    is_in = prober.lets_in(name, tls)
    return _found(attempt, is_safe=not is_in, seen="let in" if is_in else "refused")


def _client_id(prober: Prober, one: ProbeDevice, two: ProbeDevice) -> Finding:
    with prober.link(two.device_id, two.tls) as victim:
        thief = prober.link(two.device_id, one.tls)
        try:
            with thief:
                time.sleep(SILENCE_S)
        except LinkError:
            return _found(checks.CLIENT_ID, is_safe=True, seen="refused")
        lost = victim.counters.losses > 0
    seen = "the other device was pushed out" if lost else "the name was not taken"
    return _found(checks.CLIENT_ID, is_safe=not lost, seen=seen)


def _speaking(prober: Prober, one: ProbeDevice, two: ProbeDevice) -> tuple[Finding, ...]:
    with prober.link(one.device_id, one.tls) as device:

        def taken(topic: str) -> bool:
            return device.publish(topic, b"probe").wait(WAIT_S)

        crossed = [name for name, topic in (("as", two.up()), ("to", two.down())) if taken(topic)]
        released = [topic for topic in RELEASE_FILTERS if taken(topic.replace("+", "probe"))]
        is_own_taken = taken(one.up())
    words = " and ".join(f"{name} another device" for name in crossed)
    return (
        _found(
            checks.PUBLISH, is_safe=not crossed, seen=f"taken {words}" if crossed else "refused"
        ),
        _found(
            checks.RELEASE,
            is_safe=not released,
            seen=f"taken on {', '.join(released)}" if released else "refused",
        ),
        _found(
            checks.OWN_TOPICS, is_safe=is_own_taken, seen="taken" if is_own_taken else "refused"
        ),
    )


def _hearing(
    prober: Prober, attempt: Attempt, one: ProbeDevice, two: ProbeDevice, topic_filter: str
) -> Finding:
    try:
        with counting(prober.link(one.device_id, one.tls), topic_filter) as heard:
            with prober.link(two.device_id, two.tls) as other:
                for said in [other.publish(two.up(), b"probe") for _ in range(_SAID)]:
                    said.wait(WAIT_S)
            wait_for(heard)
            foreign = [topic for topic in heard if f"/{one.device_id}/" not in topic]
    except LinkError:
        foreign = []
    seen = f"heard {len(foreign)} messages" if foreign else "heard nothing"
    shown = Attempt(
        name=attempt.name, tried=f"{attempt.tried}: {topic_filter}", remedy=attempt.remedy
    )
    # Releases are for all, and whoever listens to everything hears those that are retained.
    is_private = [topic for topic in foreign if not topic.endswith("/release")]
    return _found(shown, is_safe=not is_private, seen=seen)


def _system(prober: Prober, one: ProbeDevice) -> Finding:
    try:
        with counting(prober.link(one.device_id, one.tls), SYSTEM_TOPICS) as heard:
            wait_for(heard)
            number = len(heard)
    except LinkError:
        number = 0
    seen = f"heard {number} messages" if number else "heard nothing"
    return _found(checks.SYSTEM, is_safe=not number, seen=seen)


def _packet_size(prober: Prober, one: ProbeDevice) -> Finding:
    is_read = prober.reads_oversize(one)
    return _found(checks.PACKET_SIZE, is_safe=not is_read, seen="read" if is_read else "refused")


def _everything() -> str:
    return topics.from_all_devices(topics.Up.REPLY)


def _found(attempt: Attempt, *, is_safe: bool, seen: str) -> Finding:
    verdict = Verdict.SAFE if is_safe else Verdict.UNSAFE
    return Finding(attempt=attempt, verdict=verdict, seen=seen)
