"""A device behind a gateway, killed between any two steps from an offer to its answer's last part.

Run as a program: POINTS (`all`, `FROM-TO`, or SEED:COUNT, which draws so many), FOLDER. For each
point a device is forked that ends itself by SIGKILL there; another one then hears the same offer,
as a broker brings it again, and goes on. What they said and what the ledger held is a line of JSON.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import sys
import threading
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING

import edge_client.own_training
import edge_client.site_rounds.answering
from edge_client.link.counters import AgentCounters
from edge_client.link.listener import Listener
from edge_client.link.traffic import TrafficMeter
from edge_client.site_rounds.kept_step import StepState, kept_step
from edge_client.store.mailbox import Mailbox
from edge_client.store.row_cipher import key_from_file
from models.wire.contribution import StepKind
from models.wire.envelope import SigningKey, VerifyKey, trusted_keys
from models.wire.parts import Joining, read_part
from models.wire.sealing import OpeningKey
from models.wire.site_rounds import signed_by_gateway
from models.wire.topics import Down, down
from tests.support.edge_devices import NOW
from tests.support.ledger_power_cut import Countdown
from tests.support.site_devices import SiteDriver, debited, site_rounds, site_store
from tests.support.training_tasks import KEYS

if TYPE_CHECKING:
    from collections.abc import Callable

LOADED = (edge_client.own_training, edge_client.site_rounds.answering)
DEVICE = "device-1"
PATIENCE_S = 10.0
PARTS_AT_ONCE = 2


class Gateway(SiteDriver):
    """What a gateway says, without a broker."""

    def __post_init__(self) -> None:
        self.broker = None
        self.signing_key = SigningKey.from_bytes(bytes(range(1, 33)))
        self.opening_key = OpeningKey.from_bytes(bytes(range(2, 34)))
        self._prepare()


class DirectLink:
    """Delivers the material at once to whoever listens, as a broker that retains it."""

    def __init__(self, parts: tuple[bytes, ...]) -> None:
        self.handlers: dict[str, Callable[[str, bytes], None]] = {}
        self._parts = parts

    def subscribe(self, topic_filter: str, handler: Callable[[str, bytes], None]) -> None:
        self.handlers[topic_filter] = handler

    def listen(self, topic_filter: str, handler: Callable[[str, bytes], None]) -> None:
        for number, part in enumerate(self._parts):
            handler(topic_filter.replace("+", str(number)), part)

    def listen_no_more(self, topic_filter: str) -> None:
        assert topic_filter.endswith("/+")


def live(
    path: Path, gateway: Gateway, say: Callable[[bytes], None], *, key_file: Path | None = None
) -> None:
    """Hear an offer, answer it, and say its parts, a few at a time."""
    woken = threading.Event()
    key = None if key_file is None else key_from_file(key_file)
    listener = Listener(
        path=path,
        device_id=DEVICE,
        trusted=trusted_keys(*(VerifyKey.from_bytes(key) for key in KEYS.values())),
        clock=lambda: NOW,
        counters=AgentCounters(),
        store_key=key,
    )
    link = DirectLink(gateway.material.parts())
    meter = TrafficMeter(1 << 20, clock=lambda: NOW)
    rounds = site_rounds(path, **({} if key_file is None else {"store-key": str(key_file)}))
    rounds.listen(link, listener, wake=woken.set, meter=meter)  # type: ignore[arg-type]
    topic = down(DEVICE, Down.ROUND)
    link.handlers[topic](topic, signed_by_gateway(gateway.offer_of(), gateway.signing_key))
    while True:
        rounds.turn(elapsed_s=0.0)
        with Mailbox(path, key=key) as mailbox:
            waiting = mailbox.outbox()[:PARTS_AT_ONCE]
            for message in waiting:
                say(message.payload)
            mailbox.sent(*(message.number for message in waiting))
            kept = kept_step(mailbox)
        if kept is not None and kept.state is StepState.ANSWERED and not waiting:
            return
        if not waiting:
            assert woken.wait(PATIENCE_S), kept
            woken.clear()


def fork(path: Path, gateway: Gateway, *, at: int) -> tuple[list[bytes], int, bool]:
    """Fork a device; return the parts that it said, its steps, and whether it was killed."""
    heard, said = os.pipe()
    device = os.fork()
    if device == 0:
        os.close(heard)
        countdown = Countdown(at)

        def say(part: bytes) -> None:
            os.write(said, f"{json.dumps(part.hex())}\n".encode())

        threading.setprofile(countdown.hear)
        sys.setprofile(countdown.hear)
        try:
            live(path, gateway, say)
        finally:
            sys.setprofile(None)
        os.write(said, f"{countdown.taken}\n".encode())
        os._exit(0)
    os.close(said)
    with os.fdopen(heard) as lines:
        facts = [json.loads(line) for line in lines]
    _, status = os.waitpid(device, 0)
    parts = [bytes.fromhex(fact) for fact in facts if isinstance(fact, str)]
    steps = next((fact for fact in facts if isinstance(fact, int)), 0)
    return parts, steps, os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL


def wholes(parts: list[bytes], path: Path, gateway: Gateway) -> list[bool]:
    """Return for each different answer among parts whether it is an update; all must be whole."""
    offer = gateway.offer_of()
    assert offer.step("gateway-1").kind is StepKind.UPDATE
    found = []
    for digest in {read_part(part).digest for part in parts}:
        own = [part for part in parts if read_part(part).digest == digest]
        joining = Joining(digest, gateway.form(offer).sealed_bytes)
        for part in own:
            joining.add(read_part(part))
        assert not joining.missing
        answer = gateway.opened_from(offer, path, own)
        found.append(bool(answer.values.any()))
    return found


def waiting(path: Path) -> int:
    with Mailbox(path) as mailbox:
        return len(mailbox.outbox())


def chosen_points(points: str, steps: int) -> list[int]:
    """Return which steps to be killed at."""
    if points == "all":
        return list(range(1, steps + 1))
    if "-" in points:
        first, last = map(int, points.split("-"))
        return list(range(first, min(last, steps) + 1))
    seed, count = map(int, points.split(":"))
    return sorted(Random(seed).sample(range(1, steps + 1), count))


def main() -> None:
    """Kill a device at some points, each in a folder of its own."""
    points, base = sys.argv[1], Path(sys.argv[2])
    gateway = Gateway(None)
    site_store(base / "template")
    shutil.copytree(base / "template", base / "counted")
    _, steps, _ = fork(base / "counted" / "device.db", gateway, at=0)
    for at in chosen_points(points, steps):
        folder = base / "at"
        shutil.copytree(base / "template", folder)
        path = folder / "device.db"
        first, _, killed = fork(path, gateway, at=at)
        held = {"debited": debited(path), "waiting": waiting(path)}
        second, done, _ = fork(path, gateway, at=0)
        line = {
            "at": at,
            "steps": steps,
            "killed": killed,
            "said": len(first),
            "after_kill": held,
            "is_whole": done > 0,
            "answers": wholes(first + second, path, gateway),
            "in_the_end": {"debited": debited(path), "waiting": waiting(path)},
        }
        print(json.dumps(line), flush=True)
        shutil.rmtree(folder)


if __name__ == "__main__":
    main()
