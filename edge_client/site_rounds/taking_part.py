"""The agent's part in rounds behind a gateway: what is heard, gathered, answered and told again.

Offers are kept in the link's thread; the agent's loop looks at the step at hand, and an answer is
made in a thread of its own, so that no duty of the agent waits for it. What may leave is in the
store's outbox in one transaction with the note that the step was answered. A crash at any point
before it leaves a step that is offered and perhaps debited: then the ledger refuses it, and zeros
are the answer. Never is anything made twice.
"""

from __future__ import annotations

import logging
import threading
from typing import TYPE_CHECKING

from models.errors import ModelsError
from models.wire.codec import MAX_PAYLOAD_BYTES
from models.wire.site_rounds import CountOffer
from models.wire.topics import Down, Up, down, up

from ..errors import (
    ConsentMissingError,
    EdgeError,
    StepOverError,
    StoreBusyError,
    TaskRefusedError,
)
from ..link.configuration import allowed
from ..link.traffic import publish_bytes
from ..store.mailbox import Purpose
from .gathering import Gathering
from .kept_step import Ending, StepState, keep_step, kept_step
from .offers import without_waiting
from .receiver import GatewayReceiver, take_back
from .time_left import moment_of

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import datetime

    from models.wire.listening_link import ListeningLink
    from models.wire.round_material import RoundMaterial

    from ..link.listener import Listener
    from ..link.traffic import TrafficMeter
    from ..store.mailbox import Mailbox
    from .kept_step import KeptStep
    from .settings import DeviceAt
    from .time_left import Moment

logger = logging.getLogger(__name__)


class SiteRounds:
    """Takes part in rounds behind a gateway; call `turn` from the agent's loop.

    Args:
        device_at: returns the device that takes part, at a moment.
        grant_time: the time by which grants end; never before what the server said last.
    """

    def __init__(
        self,
        device_at: DeviceAt,
        *,
        grant_time: Callable[[], datetime],
    ) -> None:
        self._device_at = device_at
        self._grant_time = grant_time
        self._has_news = True
        self._open: KeptStep | None = None
        self._gathering: Gathering | None = None
        self._work: _Work | None = None
        self._why_late = Ending.NO_MATERIAL

    def listen(
        self,
        link: ListeningLink,
        listener: Listener,
        *,
        wake: Callable[[], None],
        meter: TrafficMeter,
    ) -> None:
        """Hear gateways on a link that is not connected yet.

        Args:
            link: to the broker.
            listener: the device; its store is opened anew for each message.
            wake: has the agent's loop look at once.
            meter: of the device's traffic.
        """
        self._link, self._listener, self._wake, self._meter = link, listener, wake, meter
        receiver = GatewayReceiver(
            listener,
            device_at=self._device_at,
            grant_time=self._grant_time,
            changed=self._changed,
        )
        link.subscribe(down(listener.device_id, Down.ROUND), receiver)

    def turn(self, *, elapsed_s: float) -> None:
        """Do what is due for the step at hand; never waits for an answer.

        Args:
            elapsed_s: now, on a clock that never jumps.
        """
        if self._work is not None and self._work.is_alive:
            return
        if not self._has_news and self._open is None and self._work is None:
            return
        try:
            with self._listener.mailbox() as mailbox:
                self._look(mailbox, elapsed_s)
        except StoreBusyError as error:
            logger.warning("tried again soon: %s", error)
            self._has_news = True

    def _changed(self) -> None:
        self._has_news = True
        self._wake()

    def _look(self, mailbox: Mailbox, elapsed_s: float) -> None:
        # First, or what the link's thread tells meanwhile would be lost.
        has_news, self._has_news = self._has_news, False
        if self._work is not None:
            self._put_out(mailbox, self._work)
            self._work = None
            has_news = True
        if has_news:
            self._open = kept_step(mailbox)
        step, now = self._open, self._now()
        if step is not None:
            step = self._open = self._closed_where_due(mailbox, step, now)
        if step is None or step.state is StepState.CLOSED:
            self._open = None
        if step is None or step.state is not StepState.OFFERED:
            self._stop_gathering()
            return
        material = self._material_of(step, elapsed_s)
        if material is not None:
            self._stop_gathering()
            self._work = _Work(self._device_at, step, material, now=self._now, wake=self._wake)
            self._why_late = Ending.OVER
            self._work.begin(self._listener.clock())

    def _now(self) -> Moment:
        return moment_of(self._listener.clock().timestamp())

    def _closed_where_due(self, mailbox: Mailbox, step: KeptStep, now: Moment) -> KeptStep:
        agrees = allowed(mailbox, Purpose.TRAINING)
        found = without_waiting(step, agrees=agrees, now=now, why_late=self._why_late)
        if found is not step:
            with mailbox.transaction():
                if kept_step(mailbox) != step:
                    # The link's thread has kept another one meanwhile, and says so.
                    return found
                take_back(mailbox, self._listener.device_id)
                keep_step(mailbox, found)
            logger.info("step %d of %s: %s", step.step.index, step.step.stream, found.ending)
        return found

    def _material_of(self, step: KeptStep, elapsed_s: float) -> RoundMaterial | None:
        if not self._has_room(step):
            self._why_late = Ending.BUDGET_OF_BYTES
            return None
        gathering = self._gathering
        if gathering is None or gathering.wanted != (step.gateway, step.offer.material):
            self._stop_gathering()
            self._why_late = Ending.NO_MATERIAL
            gathering = self._gathering = Gathering(
                self._link,
                gateway=step.gateway,
                digest=step.offer.material,
                size=step.offer.material_bytes,
                meter=self._meter,
                counters=self._listener.counters,
                wake=self._wake,
            )
        if gathering.material is None and not gathering.is_spoilt:
            gathering.ask_where_due(elapsed_s)
        return gathering.material

    def _has_room(self, step: KeptStep) -> bool:
        """Tell whether today's budget of bytes holds an answer: half of one is worth nothing."""
        topic = up(step.offer.device, Up.CONTRIBUTION)
        one_part = publish_bytes(topic, MAX_PAYLOAD_BYTES)
        return self._meter.left_today() >= step.most_parts * one_part

    def _stop_gathering(self) -> None:
        if self._gathering is not None:
            self._gathering.end()
            self._gathering = None

    def _put_out(self, mailbox: Mailbox, work: _Work) -> None:
        """Put an answer into the outbox and note that there is one, both or neither."""
        step, parts = work.step, work.parts
        with mailbox.transaction():
            kept = kept_step(mailbox)
            if kept is None or kept.state is not StepState.OFFERED:
                return
            if (kept.step, kept.seal_key) != (step.step, step.seal_key):
                return
            if parts is None:
                keep_step(mailbox, kept.closed(work.ending))
                return
            topic = up(step.offer.device, Up.CONTRIBUTION)
            try:
                mailbox.put_out_many(Purpose.TRAINING, [(topic, part) for part in parts])
            except ConsentMissingError:
                keep_step(mailbox, kept.closed(Ending.NO_CONSENT))
                return
            keep_step(mailbox, kept.answered(parts))


class _Work:
    """Makes one answer, in a thread of its own.

    Args:
        device_at: returns the device that takes part, at a moment.
        step: as it was offered.
        material: what it is about.
        now: the present, by both clocks.
        wake: called at the end.

    Attributes:
        parts: of the answer; None where there is none.
        ending: why there is none.
    """

    def __init__(
        self,
        device_at: DeviceAt,
        step: KeptStep,
        material: RoundMaterial,
        *,
        now: Callable[[], Moment],
        wake: Callable[[], None],
    ) -> None:
        self.step = step
        self.parts: tuple[bytes, ...] | None = None
        self.ending = Ending.FAILED
        self._device_at, self._material = device_at, material
        self._now, self._wake = now, wake
        self._thread: threading.Thread | None = None

    @property
    def is_alive(self) -> bool:
        """Whether it is at work."""
        return self._thread is not None and self._thread.is_alive()

    def begin(self, at: datetime) -> None:
        """Begin.

        Args:
            at: the device's time.
        """
        self._thread = threading.Thread(
            target=self._run, args=(at,), name="fedcell-round", daemon=True
        )
        self._thread.start()

    def _run(self, at: datetime) -> None:
        try:
            self.parts = self._made(at)
        except StepOverError:
            self.ending = Ending.OVER
        except TaskRefusedError:
            self.ending = Ending.NO_CONSENT
        except (EdgeError, ModelsError, ValueError) as error:
            step = self.step.step
            logger.warning("step %d of %s is not answered: %s", step.index, step.stream, error)
        finally:
            self._wake()

    def _made(self, at: datetime) -> tuple[bytes, ...]:
        device = self._device_at(at)
        if device.training_path == "opacus" and not isinstance(self.step.offer, CountOffer):
            from .separate_process import Asked, answered_aside

            asked = Asked(self._device_at, self.step, self._material, at)
            return answered_aside(asked, left_s=self._left_s())
        # Loaded here: an agent that is never asked has no use for it.
        from .answering import made_parts

        return made_parts(device, self.step, self._material, left_s=self._left_s)

    def _left_s(self) -> float:
        return self.step.left_s(self._now())
