"""Many simulated devices behind one gateway: real messages, keys and seals over a real broker.

Each device has its own keys, opens its offers, trains in closed form, signs, seals, and sends its
parts, by the functions that real devices use; they share a few connections, for a thousand of them
on one machine would measure the machine. Their rows and randomness come from a block of a simulated
fleet, so that the sum which comes of them is known beforehand. A device may have a fault.
"""

from __future__ import annotations

import hashlib
import queue
import threading
from collections import deque
from dataclasses import dataclass, field, replace
from enum import StrEnum
from functools import partial
from random import Random
from typing import TYPE_CHECKING, Final, Protocol

import numpy as np

from edge_client.gateway.relay import SiteLink
from edge_client.local_training import DEVICES_AT_ONCE, local_trainer, train_on_device
from models.wire.contribution import Answer, contribution_parts
from models.wire.envelope import SigningKey
from models.wire.errors import LinkError, WireError
from models.wire.link import LinkSettings
from models.wire.parts import Joining, read_part, split
from models.wire.round_material import RoundMaterial, read_material
from models.wire.rounds import DeviceReceipt
from models.wire.site_credential import SiteDevice, weights_topic
from models.wire.site_rounds import (
    CountOffer,
    MissingParts,
    RoundOffer,
    StepRelease,
    count_form,
    open_from_gateway,
    update_form,
)
from models.wire.topics import PREFIX, Down, Up, down, parse, up
from privacy.adaptive_clipping import grid_of

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from typing import Self

    from numpy.typing import NDArray

    from models.training_rows import TrainingRows
    from models.wire.contribution import ContributionForm, Step
    from models.wire.link import Delivery
    from models.wire.link_settings import LinkTls
    from models.wire.rounds import RoundTask
    from models.wire.site_grant import DeviceGrant
    from models.wire.site_rounds import SiteMessage
    from privacy import NoiseSource

DEVICES_A_LINK: Final = 250
MOST_UNCONFIRMED: Final = 400
_END: Final = ("", b"")


class SiteFault(StrEnum):
    """What is wrong with a simulated device."""

    SILENT = "silent"
    LATE = "late"
    DUPLICATES = "duplicates"
    WRONG_SIGNATURE = "wrong_signature"
    WRONG_STEP = "wrong_step"
    REPLAY = "replay"
    BEYOND_BOUND = "beyond_bound"
    FOREIGN_RECEIPT = "foreign_receipt"
    OVERSIZE = "oversize"
    GARBAGE = "garbage"
    LOSES_A_PART = "loses_a_part"


HARMLESS: Final = frozenset({SiteFault.DUPLICATES, SiteFault.LOSES_A_PART})
"""Faults with which a device's answer counts all the same."""


class RowsOfDevices(Protocol):
    """What simulated devices train on, as a block of a simulated fleet says it."""

    def rows(self, device_id: str) -> TrainingRows:
        """Training rows of one device."""

    def source(self, device_id: str, *, stream: str, index: int) -> NoiseSource:
        """Randomness of one device's training in one step."""


@dataclass(frozen=True, slots=True)
class _Kept:
    step: Step
    parts: tuple[bytes, ...]


@dataclass(slots=True, kw_only=True)
class SiteDevices:
    """Devices behind one gateway; enter the context to have them speak.

    Attributes:
        device_ids: of the devices.
        gateway: that they believe.
        seed: of their keys.
        data: rows and randomness.
        believe: returns the grant of an envelope that the server signed, or raises.
        host: of the broker.
        port: of the broker.
        faults: of devices that have one.
        late_s: for how long one that is late holds its answer back, seconds.
        tls_of: says how a device speaks TLS, which then has a connection of its own; None for a
            broker in the clear.
        told: releases that came, by device.
    """

    device_ids: Sequence[str]
    gateway: str
    seed: str
    data: RowsOfDevices
    believe: Callable[[str], DeviceGrant]
    host: str
    port: int
    faults: Mapping[str, SiteFault] = field(default_factory=dict)
    late_s: float = 60.0
    tls_of: Callable[[str], LinkTls] | None = None
    told: dict[str, StepRelease] = field(default_factory=dict)
    _inbox: queue.SimpleQueue[tuple[str, bytes]] = field(default_factory=queue.SimpleQueue)
    _kept: dict[str, _Kept] = field(default_factory=dict)
    _materials: dict[str, RoundMaterial] = field(default_factory=dict)
    _joining: dict[bytes, Joining] = field(default_factory=dict)
    _early: dict[bytes, dict[int, bytes]] = field(default_factory=dict)
    _grants: dict[str, DeviceGrant] = field(default_factory=dict)
    _links: list[SiteLink] = field(default_factory=list)
    _link_of: dict[str, SiteLink] = field(default_factory=dict)
    _unconfirmed: deque[Delivery] = field(default_factory=deque)
    _waiting: list[tuple[str, DeviceGrant, RoundOffer | CountOffer]] = field(default_factory=list)
    _thread: threading.Thread | None = None

    def site_devices(self) -> list[SiteDevice]:
        """Return the devices as a site file names them."""
        return [
            SiteDevice(parse(up(one, Up.STATUS)).device, self.key(one).verify_key.to_bytes().hex())
            for one in self.device_ids
        ]

    def key(self, device: str) -> SigningKey:
        """Return the key that a device signs with."""
        return SigningKey.from_bytes(hashlib.sha256(f"{self.seed} {device}".encode()).digest())

    def __enter__(self) -> Self:
        """Connect, and answer from now on."""
        a_link = DEVICES_A_LINK if self.tls_of is None else 1
        for start in range(0, len(self.device_ids), a_link):
            some = self.device_ids[start : start + a_link]
            link = SiteLink(self._settings(some[0]), jitter=Random(start))
            topics = [down(one, Down.ROUND) for one in some]
            link.hear_each(topics, f"{PREFIX}/+/d/+/dn/round", self._heard)
            if start == 0:
                link.subscribe(weights_topic(self.gateway, "+"), self._heard)
            link.connect()
            self._links.append(link)
            self._link_of |= dict.fromkeys(some, link)
        self._thread = threading.Thread(target=self._work, name="site-devices", daemon=True)
        self._thread.start()
        return self

    def _settings(self, first: str) -> LinkSettings:
        shown = self.tls_of
        return LinkSettings(
            host=self.host,
            port=self.port,
            client_id=f"site-{self.seed}-{first}" if shown is None else first,
            first_wait_s=0.2,
            longest_wait_s=1.0,
            session_expiry_s=3600,
            tls=None if shown is None else partial(shown, first),
        )

    def __exit__(self, *_: object) -> None:
        """Leave."""
        self._inbox.put(_END)
        if self._thread is not None:
            self._thread.join(30)
        for link in self._links:
            link.close(drain_s=0.5)

    def _heard(self, topic: str, payload: bytes) -> None:
        self._inbox.put((topic, payload))

    def _work(self) -> None:
        num_heard = 0
        while (message := self._inbox.get()) != _END:
            topic, payload = message
            if "/dn/round" in topic:
                self._take(parse(topic).device, payload)
            elif topic in self._kept:
                self._send(topic, self._kept[topic].parts)
            elif payload:
                self._take_material(payload)
            num_heard += 1
            # Who was asked answers before those behind him are even listened to.
            if self._inbox.empty() or num_heard >= DEVICES_AT_ONCE:
                self._answer_waiting()
                num_heard = 0

    def _take_material(self, payload: bytes) -> None:
        part = read_part(payload)
        # An offer says how large the whole is; until then its parts wait.
        self._early.setdefault(part.digest, {})[part.number] = payload

    def _material(self, offer: RoundOffer | CountOffer) -> RoundMaterial | None:
        digest = bytes.fromhex(offer.material)
        if offer.material not in self._materials:
            joining = Joining(digest, offer.material_bytes)
            for payload in self._early.get(digest, {}).values():
                whole = joining.add(read_part(payload))
                if whole is not None:
                    self._materials[offer.material] = read_material(whole)
        return self._materials.get(offer.material)

    def _take(self, device: str, envelope: bytes) -> None:
        if self.faults.get(device) is SiteFault.SILENT:
            return
        try:
            grant, told = open_from_gateway(envelope, device=device, believe=self._believed)
        except WireError:
            return
        self._follow(device, grant, told)

    def _believed(self, shown: str) -> DeviceGrant:
        """Check a grant once: the same one comes with each message."""
        if shown not in self._grants:
            self._grants[shown] = self.believe(shown)
        return self._grants[shown]

    def _follow(self, device: str, grant: DeviceGrant, told: SiteMessage) -> None:
        kept = self._kept.get(device)
        match told:
            case RoundOffer() | CountOffer():
                if kept is not None and kept.step == told.step(grant.gateway):
                    self._send(device, () if self._is_late(device) else kept.parts)
                else:
                    self._waiting.append((device, grant, told))
            case MissingParts() if kept is not None and kept.step.tag.hex() == told.tag:
                numbers = told.parts or range(len(kept.parts))
                self._send(device, [kept.parts[number] for number in numbers])
            case StepRelease():
                self.told[device] = told

    def _is_late(self, device: str) -> bool:
        return self.faults.get(device) is SiteFault.LATE

    def _answer_waiting(self) -> None:
        waiting, self._waiting = self._waiting, []
        ready = [one for one in waiting if self._material(one[2]) is not None]
        self._waiting = [one for one in waiting if self._material(one[2]) is None]
        rounds = [(d, c, offer) for d, c, offer in ready if isinstance(offer, RoundOffer)]
        for start in range(0, len(rounds), DEVICES_AT_ONCE):
            self._train(rounds[start : start + DEVICES_AT_ONCE])
        for device, grant, offer in ready:
            if isinstance(offer, CountOffer):
                self._count(device, grant, offer)

    def _train(self, some: Sequence[tuple[str, DeviceGrant, RoundOffer]]) -> None:
        """Train devices side by side; all of them were offered the same step."""
        first = some[0][2]
        material, task = self._materials[first.material], first.task
        trainer = local_trainer(task.recipe)
        changes = trainer.changes(
            [
                (
                    self.data.rows(device),
                    self.data.source(device, stream=task.stream, index=task.index),
                )
                for device, _, _ in some
            ],
            weights=material.weights,
        )
        grid = grid_of(task.clipping_norm, has_norm_bit=task.has_norm_bit)
        form = update_form(task, num_weights=material.weights.size)
        for (device, grant, offer), change in zip(some, changes, strict=True):
            receipt = ""
            if offer.task.pseudonyms:
                receipt = DeviceReceipt(
                    pseudonym=offer.task.pseudonyms[0],
                    participations=1,
                    mu_squared=0.01,
                    head=hashlib.sha256(device.encode()).hexdigest(),
                ).to_line()
            self._say(device, grant, offer, Answer(grid.contribution(change), receipt), form)

    def _count(self, device: str, grant: DeviceGrant, offer: CountOffer) -> None:
        """Answer a question with a one in the bin that the device's name falls into."""
        task = offer.task_with(self._materials[offer.material])
        values = np.zeros(task.question.size, np.int64)
        values[bin_of(device, task.question.size)] = 1
        self._say(device, grant, offer, Answer(values, ""), count_form(task.question))

    def _say(
        self,
        device: str,
        grant: DeviceGrant,
        offer: RoundOffer | CountOffer,
        answer: Answer,
        form: ContributionForm,
    ) -> None:
        step, fault = offer.step(grant.gateway), self.faults.get(device)
        told = self._spoilt(step, answer, form, fault)
        parts = contribution_parts(
            told[1],
            step=told[0],
            form=form,
            device=device,
            key=self.key("nobody" if fault is SiteFault.WRONG_SIGNATURE else device),
            seal_key=grant.sealer,
        )
        if fault is SiteFault.WRONG_STEP:
            # Under the tag of the step that was asked for: what is signed inside must tell.
            parts = _tagged(parts, step.tag)
        if fault is SiteFault.REPLAY and device in self._kept:
            parts = _tagged(self._kept[device].parts, step.tag)
        if fault is SiteFault.GARBAGE:
            parts = split(Random(device).randbytes(form.sealed_bytes), tag=step.tag)
        if fault is SiteFault.OVERSIZE:
            parts = split(bytes(form.sealed_bytes + 5_000), tag=step.tag)
        if fault is not SiteFault.REPLAY or device not in self._kept:
            self._kept[device] = _Kept(step, parts)
        if fault is SiteFault.LATE:
            threading.Timer(self.late_s, self._inbox.put, [(device, b"")]).start()
            return
        self._send(device, parts[:-1] if fault is SiteFault.LOSES_A_PART else parts)
        if fault is SiteFault.DUPLICATES:
            self._send(device, parts)

    @staticmethod
    def _spoilt(
        step: Step, answer: Answer, form: ContributionForm, fault: SiteFault | None
    ) -> tuple[Step, Answer]:
        if fault is SiteFault.WRONG_STEP:
            return replace(step, index=step.index + 1), answer
        if fault is SiteFault.BEYOND_BOUND:
            return step, replace(answer, values=np.full_like(answer.values, form.most))
        if fault is SiteFault.FOREIGN_RECEIPT:
            foreign = DeviceReceipt(
                pseudonym=hashlib.sha256(b"another").hexdigest()[:32],
                participations=24,
                mu_squared=9.0,
                head="0" * 64,
            )
            return step, replace(answer, receipt=foreign.to_line())
        return step, answer

    def _send(self, device: str, parts: Sequence[bytes]) -> None:
        link = self._link_of[device]
        for part in parts:
            while len(self._unconfirmed) >= MOST_UNCONFIRMED:
                self._unconfirmed.popleft().wait(30)
            try:
                self._unconfirmed.append(link.publish(up(device, Up.CONTRIBUTION), part))
            except LinkError:
                return


def bin_of(device: str, size: int) -> int:
    """Return the bin that a simulated device answers a question with."""
    return int.from_bytes(hashlib.sha256(device.encode()).digest()[:4]) % size


def expected_sum(
    answering: Sequence[str], *, data: RowsOfDevices, task: RoundTask, weights: NDArray[np.float32]
) -> NDArray[np.int64]:
    """Return the sum of devices that each train alone, one after the other.

    Args:
        answering: whose answers count.
        data: rows and randomness.
        task: that they were offered.
        weights: of the round.
    """
    grid = grid_of(task.clipping_norm, has_norm_bit=task.has_norm_bit)
    trainer = local_trainer(task.recipe)
    total = np.zeros(grid.size(weights.size), np.int64)
    for device in answering:
        source = data.source(device, stream=task.stream, index=task.index)
        total += train_on_device(
            trainer, data.rows(device), weights=weights, grid=grid, source=source
        )
    return total


def _tagged(parts: Sequence[bytes], tag: bytes) -> tuple[bytes, ...]:
    return tuple(replace(read_part(part), tag=tag).to_bytes() for part in parts)
