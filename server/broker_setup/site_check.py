"""What is tried around rounds over MQTT: forged weights, forged rounds, another site's answers.

And whether what one client can have the broker keep for good is bounded: a message that is retained
under a topic of its own stays, and no broker counts them.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from models.wire import topics
from models.wire.errors import LinkError
from models.wire.parts import MOST_PARTS
from models.wire.site_credential import weights_topic

from . import checks
from .checks import Finding, Verdict
from .configuration import PROBE_GATEWAY, PROBE_METER
from .probes import SILENCE_S, WAIT_S, counting

if TYPE_CHECKING:
    from models.wire.link import Link

    from .probes import ProbeDevice, Prober

_SAID = 5


def check_sites(
    prober: Prober, one: ProbeDevice, two: ProbeDevice
) -> tuple[Finding, Finding, Finding]:
    """Try what only a gateway should be able to do, and what it should not either.

    Args:
        prober: connects.
        one: a device that tries.
        two: a device of no site.
    """
    with prober.link(one.device_id, one.tls) as device:
        forged = [weights_topic(name, 0) for name in ("probe", one.device_id)]
        rounds = [topics.down(name.device_id, topics.Down.ROUND) for name in (one, two)]
        weights = _taken(device, forged)
        asked = _taken(device, rounds)
    return (
        _found(checks.WEIGHTS, weights, "taken"),
        _found(checks.ROUND, asked, "taken"),
        _other_site(prober, two),
    )


def free_topics(prober: Prober, one: ProbeDevice) -> Finding:
    """Try topics that belong to nothing, as a device and as a gateway; none is retained.

    Args:
        prober: connects.
        one: a device that tries.
    """
    own = one.up()
    shard, kind = topics.shard_of(one.device_id), topics.Up.REPLY.value
    place = f"{topics.PREFIX}/gateway/{PROBE_GATEWAY}"
    try:
        with prober.link(one.device_id, one.tls) as device:
            free = _taken(
                device,
                [
                    own.replace(f"/{shard}/", "/probe/", 1),
                    own.replace(f"/{shard}/", "/100/", 1),
                    f"{own.removesuffix(kind)}probe",
                    f"{own}/probe",
                ],
            )
        with prober.link(PROBE_GATEWAY, prober.of_probe_site(PROBE_GATEWAY)) as gateway:
            free += _taken(
                gateway,
                [
                    f"{place}/weights/{MOST_PARTS}",
                    f"{place}/weights/0/probe",
                    f"{place}/probe",
                ],
            )
    except LinkError:
        what = "a probe was not let in"
        return Finding(attempt=checks.FREE_TOPICS, verdict=Verdict.UNKNOWN, seen=what)
    return _found(checks.FREE_TOPICS, free, "taken")


def _other_site(prober: Prober, two: ProbeDevice) -> Finding:
    gateway, meter = (prober.of_probe_site(name) for name in (PROBE_GATEWAY, PROBE_METER))
    contribution = topics.Up.CONTRIBUTION
    own = f"{topics.PREFIX}/{topics.shard_of(PROBE_METER)}/d/{PROBE_METER}/up/{contribution.value}"
    try:
        with counting(
            prober.link(PROBE_GATEWAY, gateway), topics.from_all_devices(contribution)
        ) as heard:
            with (
                prober.link(two.device_id, two.tls) as foreign,
                prober.link(PROBE_METER, meter) as member,
            ):
                said = [
                    link.publish(topic, b"probe")
                    for _ in range(_SAID)
                    for link, topic in (
                        (foreign, topics.up(two.device_id, contribution)),
                        (member, own),
                    )
                ]
                for one in said:
                    one.wait(WAIT_S)
            _wait_for_all(heard, own)
            stolen = [topic for topic in heard if topic != own]
            is_known = own in heard
        with prober.link(PROBE_GATEWAY, gateway) as link:
            crossed = _taken(link, [topics.down(two.device_id, topics.Down.ROUND)])
    except LinkError:
        what = "a probe was not let in"
        return Finding(attempt=checks.OTHER_SITE, verdict=Verdict.UNKNOWN, seen=what)
    if stolen:
        return _found(checks.OTHER_SITE, stolen, f"heard {len(stolen)} of another site's answers")
    seen = "heard its own site alone" if is_known else "no gateway is known here"
    return _found(checks.OTHER_SITE, crossed, "taken", safe=seen)


def _wait_for_all(heard: list[str], own: str) -> None:
    """Wait until the own device was heard, and then for as long as silence is listened to."""
    deadline = time.monotonic() + WAIT_S
    while own not in heard and time.monotonic() < deadline:
        time.sleep(0.01)
    time.sleep(SILENCE_S / 2)


def _taken(link: Link, tried: list[str]) -> list[str]:
    return [topic for topic in tried if link.publish(topic, b"probe").wait(WAIT_S)]


def _found(
    attempt: checks.Attempt, taken: list[str], what: str, *, safe: str = "refused"
) -> Finding:
    if not taken:
        return Finding(attempt=attempt, verdict=Verdict.SAFE, seen=safe)
    named = ", ".join(sorted(set(taken)))
    return Finding(attempt=attempt, verdict=Verdict.UNSAFE, seen=f"{what}: {named}")
