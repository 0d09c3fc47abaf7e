"""A real device in a release of counts: count, debit, and only then answer.

Whatever is decided, what leaves is one vector of the question's shape. A device that its owner
keeps out, whose ledger refuses or that has nothing to say answers zeros, and nobody can tell which.
"""

from __future__ import annotations

import logging
from contextlib import suppress
from typing import TYPE_CHECKING

from models.telemetry import DeviceProfiles

from .count_answers import OwnData, count_answer, zero_answer
from .errors import LedgerError, ParticipationRefusedError, StoreBusyError, TaskRefusedError
from .link.configuration import allowed
from .model_store import INSTALLED, ModelStore
from .privacy.participation import debit_count
from .store.mailbox import Purpose

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractContextManager
    from datetime import datetime

    import numpy as np
    from numpy.typing import NDArray

    from models.inference import Predictor
    from models.wire.counts import CountTask

    from .privacy.participation import Terms
    from .telemetry_store import TelemetryStore

logger = logging.getLogger(__name__)


def own_count(
    open_store: Callable[[], AbstractContextManager[TelemetryStore]],
    task: CountTask,
    *,
    terms: Terms,
    now: datetime,
) -> NDArray[np.int64]:
    """Answer a task for counts as the one device behind a node.

    Args:
        open_store: opens the device's store and checks that it is its own.
        task: as the server sent it.
        terms: on which the device takes part.
        now: aware time.

    Returns:
        int64, shape (task.question.size,); debited if it is not zeros by refusal.

    Raises:
        TaskRefusedError: another device is asked for.
        CloneError: store or identity come from another device.
        StoreError: the store cannot be used.
    """
    try:
        with open_store() as store:
            if task.device_ids != (str(store.profile.device_id),):
                raise TaskRefusedError("the devices asked are not the one behind this node")
            if not allowed(store, Purpose.TRAINING):
                return zero_answer(task.question)
            data = OwnData(
                telemetry=store.telemetry(),
                profiles=DeviceProfiles.of([store.profile]),
                references=store.references_beyond_the_ring(),
                answers=store.owner_answers(),
            )
            predictor = _predictor(store) if task.question.model_version else None
        answer = count_answer(task.question, data, now_s=int(now.timestamp()), predictor=predictor)
        with open_store() as store:
            if not allowed(store, Purpose.TRAINING):
                return zero_answer(task.question)
            debit_count(
                store,
                policy=task.policy,
                channel=task.channel,
                index=task.index,
                terms=terms,
                now=now,
            )
    except (ParticipationRefusedError, LedgerError, StoreBusyError) as error:
        logger.warning("release %d of %s: %s", task.index, task.channel, error)
        return zero_answer(task.question)
    return answer


def _predictor(store: TelemetryStore) -> Predictor | None:
    """Return what runs the model in use; None where none can be run."""
    from models.errors import BundleError
    from models.inference import Predictor

    with suppress(BundleError):
        return Predictor(ModelStore.beside(store.path).open(INSTALLED))
    return None
