"""Devices behind a gateway, and a gateway that says and does exactly what a test tells it."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field, replace
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from edge_client.agent import AgentParts, AgentPlan, run_agent
from edge_client.client import EdgeClient
from edge_client.privacy.ledger_file import read_device_ledger
from edge_client.provisioning.identity import make_identity, own_identity, read_identity
from edge_client.site_rounds.kept_step import kept_step
from edge_client.site_rounds.settings import DeviceAt
from edge_client.site_rounds.taking_part import SiteRounds
from edge_client.store.mailbox import Purpose
from edge_client.telemetry_store import TelemetryStore
from models.network_shape import NUM_WEIGHTS
from models.telemetry import DeviceId, Reading
from models.wire.contribution import ContributionForm, open_contribution
from models.wire.counts import CountQuestion
from models.wire.envelope import SigningKey
from models.wire.parts import join, read_part
from models.wire.round_material import RoundMaterial
from models.wire.sealing import OpeningKey
from models.wire.site_credential import weights_topic
from models.wire.site_grant import DeviceGrant
from models.wire.site_rounds import (
    CountOffer,
    MissingParts,
    RoundOffer,
    StepRelease,
    count_form,
    signed_by_gateway,
    update_form,
)
from models.wire.topics import Down, Up, down, up
from privacy import Participation, StreamPolicy
from tests.support.brokers import link_to, wait_until
from tests.support.edge_devices import NOW, PROFILE
from tests.support.line_bundle import trusted_keys
from tests.support.stream_policies import stream_policy
from tests.support.training_tasks import KEY, KEYS, receipt_of, release_of, signed, task_of

if TYPE_CHECKING:
    from datetime import datetime
    from pathlib import Path

    from edge_client.store.row_cipher import KeySource

GATEWAY = "gateway-1"
POLICY: StreamPolicy = replace(
    stream_policy(participations=9, separation=1, cohort_size=100),
    record=replace(stream_policy().record, least_rows=1),
)
WEIGHTS = np.random.default_rng(1).normal(0.0, 0.1, NUM_WEIGHTS).astype(np.float32)


def site_store(
    folder: Path,
    name: str = "device-1",
    *,
    days: int = 300,
    key: KeySource | None = None,
    until: datetime = NOW,
) -> Path:
    """Make the store of a device that has its keys, whose owner agrees to training."""
    folder.mkdir(exist_ok=True)
    path = folder / "device.db"
    readings = [
        Reading(at=until - timedelta(days=days - day), full_charge_capacity_mah=2900.0 - day)
        for day in range(days)
    ]
    make_identity(path, device_id=name, hardware_id=None)
    profile = replace(PROFILE, device_id=DeviceId(name))
    with TelemetryStore.create(path, profile=profile, key=key) as store:
        store.record_many(readings, now=until)
        store.set_consent(Purpose.TRAINING, granted=True, now=until)
        own_identity(store, device_id=name, hardware_id=None)
    return path


def site_rounds(path: Path, *, now: Any = NOW, **values: Any) -> SiteRounds:
    """Return what takes part, where nothing of this machine decides whether it trains."""
    named = {"telemetry-db": str(path), "power-supplies": "/nowhere", **values}
    return SiteRounds(DeviceAt(named, KEYS), grant_time=lambda: now)


class SiteAgent:
    """A device's agent in a thread of its own, which takes part in a gateway's rounds."""

    def __init__(self, path: Path, bundle: Path, broker: Any, **choices: Any) -> None:
        self.path = path
        self.now = choices.pop("now", NOW)
        values = choices.pop("values", {})
        self.rounds = site_rounds(path, now=self.now, **values)
        self.plan = AgentPlan(poll_s=0.05, **choices)
        self.agent: Any = None
        self.error: BaseException | None = None
        self._bundle, self._place = bundle, (broker.host, broker.port)
        self._thread = threading.Thread(target=self._run, daemon=True)

    def _run(self) -> None:
        try:
            with EdgeClient(self.path, self._bundle, trusted_keys=trusted_keys()) as client:
                run_agent(
                    client,
                    broker=self._place,
                    server_keys=KEYS,
                    plan=self.plan,
                    clock=lambda: self.now,
                    on_start=self._started,
                    on_report=lambda _report: None,
                    show=lambda *_: None,
                    parts=AgentParts(rounds=self.rounds),
                )
        except BaseException as error:  # noqa: BLE001 - raised again where the agent is left
            self.error = error

    def _started(self, agent: Any) -> None:
        link = agent._link
        link.settings = replace(link.settings, first_wait_s=0.02, longest_wait_s=0.1)
        self.agent = agent

    def __enter__(self) -> Self:
        self._thread.start()
        assert wait_until(lambda: self.agent is not None or self.error)
        assert wait_until(lambda: self.error or self.agent._link.is_connected)
        return self

    def __exit__(self, *_: object) -> None:
        self.agent.stop()
        self._thread.join(20)
        assert not self._thread.is_alive()
        if self.error is not None:
            raise self.error

    @property
    def refused(self) -> dict[str, int]:
        return self.agent.counters.refused


def debited(path: Path) -> list[int]:
    """Return the steps that a device's ledger holds."""
    with TelemetryStore(path) as store:
        events = read_device_ledger(path, store).events
    return [event.index for event in events if isinstance(event, Participation)]


def step_of(path: Path) -> Any:
    """Return the step that a device keeps."""
    with TelemetryStore(path) as store:
        return kept_step(store)


@dataclass
class SiteDriver:
    """Speaks as a gateway by what the wire's functions make; remembers every part that came."""

    broker: Any
    signing_key: SigningKey = field(default_factory=SigningKey.generate)
    opening_key: OpeningKey = field(default_factory=OpeningKey.generate)
    came: list[tuple[str, bytes]] = field(default_factory=list)
    born: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._prepare()
        self.link = link_to(self.broker, GATEWAY)
        self.link.subscribe("fedcell/v1/+/d/+/up/contribution", self._hear)
        self.link.subscribe("fedcell/v1/+/d/+/up/birth", lambda topic, _: self.born.append(topic))

    def _prepare(self) -> None:
        self.material = RoundMaterial(weights=WEIGHTS, policy=signed(POLICY))

    def grant(self, device: str = "device-1", *, key: SigningKey = KEY, **changes: Any) -> str:
        values = {
            "device": DeviceId(device),
            "gateway": DeviceId(GATEWAY),
            "issued": NOW - timedelta(days=1),
            "not_after": NOW + timedelta(days=30),
            "verify_key": self.signing_key.verify_key.to_bytes().hex(),
            "seal_key": self.opening_key.seal_key.to_bytes().hex(),
        }
        return DeviceGrant(**(values | changes)).signed(key)

    def __enter__(self) -> Self:
        self.link.connect()
        return self

    def __exit__(self, *_: object) -> None:
        self.link.close()

    def _hear(self, topic: str, payload: bytes) -> None:
        self.came.append((topic, payload))

    def broadcast(self, order: Any = None, *, parts: tuple[bytes, ...] | None = None) -> None:
        """Say the material's parts, retained; `order` leaves some out or sorts them anew."""
        parts = self.material.parts() if parts is None else parts
        for number in range(len(parts)) if order is None else order:
            self.link.publish(weights_topic(GATEWAY, number), parts[number], retain=True)

    def offer_of(self, device: str = "device-1", *, index: int = 0, **changes: Any) -> RoundOffer:
        content = self.material.to_bytes()
        task = changes.pop("task", None) or task_of(
            POLICY, index=index, device_ids=(device,), policy=""
        )
        values = {
            "grant": self.grant(device),
            "device": device,
            "material": self.digest,
            "material_bytes": len(content),
            "deadline_s": 60,
            "task": task,
        }
        return RoundOffer(**(values | changes))

    def offer_of_counts(self, channel: str, *, index: int) -> CountOffer:
        return CountOffer(
            grant=self.grant(),
            device="device-1",
            material=self.digest,
            material_bytes=len(self.material.to_bytes()),
            deadline_s=60,
            channel=channel,
            index=index,
            cohort_size=100,
        )

    @property
    def digest(self) -> str:
        return read_part(self.material.parts()[0]).digest.hex()

    def say(self, message: Any, *, key: SigningKey | None = None) -> None:
        envelope = signed_by_gateway(message, key or self.signing_key)
        delivery = self.link.publish(down(message.device, Down.ROUND), envelope)
        assert delivery.wait(10)

    def offer(self, device: str = "device-1", **changes: Any) -> RoundOffer:
        made = self.offer_of(device, **changes)
        self.say(made)
        return made

    def ask_for_missing(self, offer: RoundOffer | CountOffer, *parts: int) -> None:
        tag = offer.step(GATEWAY).tag.hex()
        self.say(MissingParts(grant=offer.grant, device=offer.device, tag=tag, parts=parts))

    def release(self, offer: RoundOffer | CountOffer) -> None:
        entry = receipt_of(release_of(POLICY, index=offer.task.index)).entry
        step = {"stream": offer.task.stream, "index": offer.task.index, "entry": entry}
        self.say(StepRelease(grant=offer.grant, device=offer.device, **step))

    def parts_of(self, offer: RoundOffer | CountOffer) -> list[bytes]:
        """Return the parts that came for an offer, in their order, repeats included."""
        topic, tag = up(offer.device, Up.CONTRIBUTION), offer.step(GATEWAY).tag
        return [part for name, part in self.came if name == topic and read_part(part).tag == tag]

    def form(self, offer: RoundOffer | CountOffer) -> ContributionForm:
        if isinstance(offer, CountOffer):
            return count_form(CountQuestion.from_text(self.material.question))
        return update_form(offer.task, num_weights=WEIGHTS.size)

    def has_answer(self, offer: RoundOffer | CountOffer) -> bool:
        numbers = {read_part(part).number for part in self.parts_of(offer)}
        return numbers == set(range(self.form(offer).num_parts))

    def wait_for_answer(
        self, offer: RoundOffer | CountOffer, path: Path, timeout_s: float = 20.0
    ) -> Any:
        """Return what a device answered, opened; all its parts are of one whole."""
        assert wait_until(lambda: self.has_answer(offer), timeout_s)
        return self.opened(offer, path)

    def opened(self, offer: RoundOffer | CountOffer, path: Path) -> Any:
        return self.opened_from(offer, path, self.parts_of(offer))

    def opened_from(self, offer: RoundOffer | CountOffer, path: Path, came: list[bytes]) -> Any:
        form, step = self.form(offer), offer.step(GATEWAY)
        parts = [read_part(part) for part in came]
        whole = join(parts, digest=parts[0].digest, size=form.sealed_bytes)
        identity = read_identity(path)
        assert identity is not None
        return open_contribution(
            whole,
            step=step,
            form=form,
            device=offer.device,
            key=identity.signing_key.verify_key,
            opening_key=self.opening_key,
        )
