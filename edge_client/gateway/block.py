"""The devices behind a gateway, as a block of a SuperNode: asked over MQTT, added up here.

Training, clipping and the privacy ledger are on the devices. A gateway passes a task down, judges
each answer alone, and passes one sum on with the receipts that came beside; raw telemetry never
reaches it. It holds the device's lock while it speaks, for two links of one name push each other
out of the broker's session.
"""

from __future__ import annotations

import hashlib
import logging
import time
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import partial
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from models.wire.contribution import Step, StepKind
from models.wire.round_material import RoundMaterial
from models.wire.site_rounds import (
    MOST_DEADLINE_S,
    CountOffer,
    RoundOffer,
    StepRelease,
    count_form,
    update_form,
)
from privacy.adaptive_clipping import grid_of
from privacy.counts import sum_is_possible

from ..errors import GatewayError, JoinError, StoreBusyError, TaskRefusedError
from ..link.agent_lock import agent_lock
from .collecting import Collection, Invited
from .record import (
    StepTold,
    gateway_folder,
    read_answered,
    tell_step,
    write_answered,
)
from .relay import Relay
from .site import gateway_site

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from numpy.typing import NDArray

    from models.wire.contribution import ContributionForm
    from models.wire.counts import CountTask
    from models.wire.rounds import ReleaseReceipt, RoundTask
    from models.wire.site_rounds import SiteMessage

    from .site import GatewaySite

logger = logging.getLogger(__name__)

MARGIN_SHARE: Final = 0.15
LEAST_MARGIN_S, MOST_MARGIN_S = 4.0, 30.0
"""What is kept of the server's time for the sum's own way, seconds."""
COUNT_ON_ITS_WAY_S: Final = 10.0
"""How long a question for counts is taken to have been on its way: nobody says when it was sent."""
RELEASE_WITHIN_S: Final = 120.0
LOCK_POLL_S: Final = 0.2


def budget_s(deadline_s: float, *, waited_s: float) -> float:
    """Return how long devices may be waited for, so that the sum is back in time.

    Args:
        deadline_s: for which the server waits.
        waited_s: how long ago the server asked, by both machines' clocks; where these differ, no
            more than half of the time is lost by it.
    """
    margin_s = min(max(MARGIN_SHARE * deadline_s, LEAST_MARGIN_S), MOST_MARGIN_S)
    left_s = deadline_s - min(max(waited_s, 0.0), deadline_s / 2) - margin_s
    return max(left_s, deadline_s / 10)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Asking:
    """One step, ready to be offered.

    Attributes:
        series: under which it stands in the record.
        step: as answers name it.
        form: of an answer.
        material: what all devices read.
        pseudonyms: of the devices that are asked, empty where no receipts are.
        device_ids: of them.
        is_possible: whether one device can have sent a vector.
        offer: returns the offer to a device, with the seconds that are left to it.
        end_s: until when, on a clock that never jumps.
    """

    series: str
    step: Step
    form: ContributionForm
    material: RoundMaterial
    device_ids: tuple[str, ...]
    pseudonyms: Mapping[str, str]
    is_possible: Callable[[NDArray[np.int64]], bool]
    offer: Callable[[str, int], SiteMessage]
    end_s: float


@dataclass(frozen=True, slots=True)
class GatewayBlock:
    """The devices of a site.

    Attributes:
        site: the gateway and its devices.
        relay: speaks to them.
        now: aware time, for the record.
        elapsed_s: on a clock that never jumps.
    """

    site: GatewaySite
    relay: Relay
    now: Callable[[], datetime] = lambda: datetime.now(UTC)
    elapsed_s: Callable[[], float] = time.monotonic

    @property
    def device_ids(self) -> tuple[str, ...]:
        """The devices that the credential is for."""
        return tuple(str(device.device_id) for device in self.site.site.devices)

    def relay_task(
        self, task: RoundTask, weights: NDArray[np.float32], *, waited_s: float
    ) -> tuple[NDArray[np.int64], int, tuple[str, ...]]:
        """Have the invited devices answer a task.

        Args:
            task: as the server sent it.
            weights: of the round, float32, shape (n_weights,).
            waited_s: how long ago the server sent it.

        Returns:
            The sum of the good answers, how many devices are in it, and what their ledgers say;
            nothing of a step that was answered before.

        Raises:
            SiteUnreachableError: the broker does not answer.
            GatewayError: the record cannot be read or written.
            StoreBusyError: another process speaks for this gateway.
        """
        form = update_form(task, num_weights=weights.size)
        grid = grid_of(task.clipping_norm, has_norm_bit=task.has_norm_bit)
        material = RoundMaterial(weights=weights, policy=task.policy)
        pseudonyms = dict(zip(task.device_ids, task.pseudonyms, strict=False))
        offered, grants = self._offered(material), self.site.site.grants

        def offer(device: str, left_s: int) -> SiteMessage:
            own = replace(
                task,
                device_ids=(device,),
                pseudonyms=(pseudonyms[device],) if pseudonyms else (),
                policy="",
                deadline_s=0.0,
            )
            return RoundOffer(
                **offered, grant=grants[device], device=device, deadline_s=left_s, task=own
            )

        collected = self._asked(
            _Asking(
                series=f"{StepKind.UPDATE}/{task.stream}",
                step=self._step(StepKind.UPDATE, task.stream, task.index, offered["material"]),
                form=form,
                material=material,
                device_ids=task.device_ids,
                pseudonyms=pseudonyms,
                is_possible=partial(grid.sum_is_possible, num_devices=1),
                offer=offer,
                end_s=self._end_s(task.deadline_s, waited_s),
            )
        )
        if collected is None:
            return np.zeros(form.num_entries, np.int64), 0, ()
        receipts = tuple(
            collected.receipts[device] for device in task.device_ids if device in collected.receipts
        )
        return collected.total, len(collected.answered), receipts

    def count(self, task: CountTask) -> NDArray[np.int64]:
        """Have the asked devices answer a question for counts; who is silent counts as zeros.

        Raises:
            SiteUnreachableError: the broker does not answer.
            GatewayError: the record cannot be read or written.
            StoreBusyError: another process speaks for this gateway.
        """
        self._require_own(task.device_ids)
        material = RoundMaterial(
            weights=np.zeros(0, np.float32), policy=task.policy, question=task.question.to_text()
        )
        policy = hashlib.sha256(task.policy.encode()).hexdigest()[:16]
        offered, grants = self._offered(material), self.site.site.grants

        def offer(device: str, left_s: int) -> SiteMessage:
            return CountOffer(
                **offered,
                grant=grants[device],
                device=device,
                deadline_s=left_s,
                channel=task.channel,
                index=task.index,
                cohort_size=task.cohort_size,
            )

        collected = self._asked(
            _Asking(
                series=f"{StepKind.COUNT}/{task.channel}/{policy}",
                step=self._step(StepKind.COUNT, task.channel, task.index, offered["material"]),
                form=count_form(task.question),
                material=material,
                device_ids=task.device_ids,
                pseudonyms={},
                is_possible=partial(
                    sum_is_possible,
                    num_devices=1,
                    sensitivity_squared=task.question.sensitivity_squared,
                ),
                offer=offer,
                end_s=self._end_s(task.deadline_s, COUNT_ON_ITS_WAY_S),
            )
        )
        return np.zeros(task.question.size, np.int64) if collected is None else collected.total

    def keep_receipt(self, receipt: ReleaseReceipt) -> None:
        """Pass a release on to the devices that its step was offered to.

        Raises:
            SiteUnreachableError: the broker does not answer.
            GatewayError: the record cannot be read.
            StoreBusyError: another process speaks for this gateway.
        """
        answered = read_answered(gateway_folder(self.site.store))
        if (answered.stream, answered.index) != (receipt.stream, receipt.index):
            logger.warning("step %d of %s was not offered here", receipt.index, receipt.stream)
            return
        messages = {
            device: StepRelease(
                grant=grant,
                device=device,
                stream=receipt.stream,
                index=receipt.index,
                entry=receipt.entry,
            )
            for device in answered.offered_to
            if (grant := self.site.site.grants.get(device)) is not None
        }
        with self._alone(self.elapsed_s() + RELEASE_WITHIN_S):
            self.relay.tell(messages, within_s=RELEASE_WITHIN_S)

    def _asked(self, asking: _Asking) -> Collection | None:
        """Ask the devices of one step; None where it was answered before."""
        self._require_own(asking.device_ids)
        folder, step = gateway_folder(self.site.store), asking.step
        with self._alone(asking.end_s):
            begun_s, before = self.elapsed_s(), read_answered(folder)
            if before.has_answered(asking.series, step.index):
                logger.warning("step %d of %s was answered before", step.index, step.stream)
                return None
            parts = asking.material.parts()
            answered = replace(
                before,
                stream=step.stream if step.kind is StepKind.UPDATE else before.stream,
                index=step.index if step.kind is StepKind.UPDATE else before.index,
                offered_to=asking.device_ids if step.kind is StepKind.UPDATE else before.offered_to,
                retained_parts=max(len(parts), before.retained_parts),
            )
            write_answered(folder, answered)
            collection = self._collection(asking)
            left = self.relay.collect(
                collection,
                parts=parts,
                offer=asking.offer,
                budget_s=max(asking.end_s - begun_s, 1.0),
                retained_before=before.retained_parts,
            )
            # Before the sum leaves: whoever asks for this step again gets nothing.
            done = answered.with_answer(asking.series, step.index)
            write_answered(folder, replace(done, retained_parts=left))
        self._tell(collection, seconds=self.elapsed_s() - begun_s)
        return collection

    def _collection(self, asking: _Asking) -> Collection:
        key_of = {str(one.device_id): one.verifier for one in self.site.site.devices}
        return Collection(
            step=asking.step,
            form=asking.form,
            invited={
                device: Invited(key=key_of[device], pseudonym=asking.pseudonyms.get(device, ""))
                for device in asking.device_ids
            },
            opening_key=self.site.identity.opening_key,
            is_possible=asking.is_possible,
        )

    def _require_own(self, device_ids: Sequence[str]) -> None:
        """Refuse devices of other sites, and more than the credential is for.

        Raises:
            TaskRefusedError: the task names them.
        """
        unknown = set(device_ids) - set(self.device_ids)
        if unknown:
            raise TaskRefusedError(f"{len(unknown)} of the devices asked are not of this site")
        most = self.site.site.credential.most_devices
        if len(device_ids) > most:
            raise TaskRefusedError(f"{len(device_ids)} devices, the credential is for {most}")

    def _tell(self, collection: Collection, *, seconds: float) -> None:
        step = collection.step
        silent = tuple(one for one in collection.invited if one not in collection.answered)
        told = StepTold(
            kind=step.kind.value,
            stream=step.stream,
            index=step.index,
            at=self.now().isoformat(timespec="seconds"),
            seconds=seconds,
            invited=len(collection.invited),
            answered=len(collection.answered),
            refused=collection.tally,
            silent=silent,
        )
        logger.info("%d of %d devices answered", told.answered, told.invited)
        try:
            tell_step(gateway_folder(self.site.store), self.site.gateway, told)
        except GatewayError as error:
            # The step stands as answered: its sum is lost to everybody unless it leaves now.
            logger.warning("what came of the step is not told: %s", error)

    def _step(self, kind: StepKind, stream: str, index: int, material: str) -> Step:
        return Step(
            kind=kind, stream=stream, index=index, gateway=self.site.gateway, material=material
        )

    def _offered(self, material: RoundMaterial) -> dict[str, Any]:
        whole = material.to_bytes()
        return {
            "material": hashlib.sha256(whole).hexdigest(),
            "material_bytes": len(whole),
        }

    def _end_s(self, deadline_s: float, waited_s: float) -> float:
        seconds = min(deadline_s or self.site.deadline_s, MOST_DEADLINE_S)
        return self.elapsed_s() + budget_s(seconds, waited_s=waited_s)

    @contextmanager
    def _alone(self, end_s: float) -> Iterator[None]:
        """Be the one that speaks under this name; another one is waited for.

        Raises:
            StoreBusyError: it goes on beyond the end.
        """
        with ExitStack() as held:
            while True:
                try:
                    held.enter_context(agent_lock(self.site.store))
                    break
                except StoreBusyError:
                    if self.elapsed_s() >= end_s:
                        raise
                    time.sleep(LOCK_POLL_S)
            _renew_where_due(self.site, now=self.now())
            yield


def own_gateway(node_config: Mapping[str, object], *, now: datetime) -> GatewayBlock:
    """Return the gateway that a node's configuration stands for.

    Raises:
        EdgeError: a file or a value of it cannot be used.
    """
    site = gateway_site(node_config, now=now)
    return GatewayBlock(site, Relay(site))


def _renew_where_due(site: GatewaySite, *, now: datetime) -> None:
    """Renew the certificate in the last third of its life; where that fails, the old one serves."""
    from ..provisioning.joining import renew
    from ..provisioning.renewal import is_renewal_due

    if site.membership is None or not is_renewal_due(site.membership, now):
        return
    try:
        renew(site.store, site.identity, looks_at_time=True)
    except (JoinError, StoreBusyError) as error:
        logger.warning("the certificate is not renewed yet: %s", error)
