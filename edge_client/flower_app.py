"""ClientApp only: messages in, messages out.

A node stands for one device or for a block of devices behind it. It answers a query with the
identifiers of its devices, a task with one integer sum over those of them that were invited, and a
question for counts with one integer vector. Beside a sum stands what a real device's own privacy
ledger says of its participations. Nothing else leaves: no loss, no number of rows, no figure of one
device, and of a failure only its code. Flower would send an exception's text, so no exception gets
as far as Flower.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache
from typing import TYPE_CHECKING, Protocol, runtime_checkable

import numpy as np
from flwr.app import Array, ArrayRecord, ConfigRecord, Error, Message, RecordDict
from flwr.clientapp import ClientApp

from models.wire.counts import COUNTS_QUERY
from models.wire.rounds import (
    CONTRIBUTION_RECORD,
    DEVICES_RECORD,
    FLAT_ARRAY,
    RECEIPT_MESSAGE,
    RECEIPT_RECORD,
    SUM_RECORD,
    TASK_RECORD,
    WEIGHTS_RECORD,
    Contribution,
    LocalRecipe,
    NodeFailure,
    ReleaseReceipt,
    RoundTask,
)
from privacy.adaptive_clipping import grid_of

from .count_messages import CountsAnswer
from .errors import DeviceAwayError, InputError, StoreError, TaskRefusedError
from .gateway import SITE_KEY
from .local_training import TrainingPath, local_trainer, train_block

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from flwr.app import Context
    from numpy.typing import NDArray

    from models.training_rows import TrainingRows
    from privacy import NoiseSource

    from .local_training import LocalTrainer


logger = logging.getLogger(__name__)

APP_FAILED = 2
"""Flower's code of an error reply whose cause lies in the app."""


class DeviceBlock(Protocol):
    """The devices behind one node."""

    @property
    def device_ids(self) -> tuple[str, ...]:
        """Stable identifiers of the devices."""

    def rows(self, device_id: str) -> TrainingRows:
        """Training rows of one device; empty where it does not take part.

        Raises:
            DeviceAwayError: it cannot be reached, and is missing from the sum.
        """

    def source(self, device_id: str, *, stream: str, index: int) -> NoiseSource:
        """Randomness of one device's training in one step."""


@runtime_checkable
class AccountedBlock(Protocol):
    """A block that keeps a privacy ledger of its own, as a real device does."""

    def answer(
        self, task: RoundTask, train: Callable[[], NDArray[np.int64]]
    ) -> tuple[NDArray[np.int64] | None, tuple[str, ...]]:
        """Debit a step and return its update, None for zeros, and receipts of its ledger."""

    def keep_receipt(self, receipt: ReleaseReceipt) -> None:
        """Hold the server's receipt against the ledger, and keep it."""


@runtime_checkable
class RelaysTasks(Protocol):
    """A block whose devices train elsewhere and are asked from here."""

    def relay_task(
        self, task: RoundTask, weights: NDArray[np.float32], *, waited_s: float
    ) -> tuple[NDArray[np.int64], int, tuple[str, ...]]:
        """Return the sum of their updates, how many are in it, and receipts of their ledgers.

        Args:
            task: as the server sent it.
            weights: of the round, float32, shape (n_weights,).
            waited_s: how long ago the server sent it, by its clock and this one.
        """


class RelayingBlock(RelaysTasks, Protocol):
    """The devices behind a gateway."""

    @property
    def device_ids(self) -> tuple[str, ...]:
        """Stable identifiers of the devices."""


@runtime_checkable
class ReceivingBlock(Protocol):
    """A block that takes the receipts of releases."""

    def keep_receipt(self, receipt: ReleaseReceipt) -> None:
        """Hold the server's receipt against the ledger, or pass it on to who can."""


@runtime_checkable
class BlockWithTrainingPath(Protocol):
    """A block that says how row gradients are computed; others take the closed form."""

    @property
    def training_path(self) -> TrainingPath:
        """How row gradients are computed."""


def client_app(block_of: Callable[[Context], DeviceBlock | RelayingBlock]) -> ClientApp:
    """Make the ClientApp of a node.

    Args:
        block_of: finds the devices behind the node from its Flower context.
    """
    app = ClientApp()
    app.query()(_CodedFailures(_DevicesAnswer(block_of)))
    app.query(RECEIPT_MESSAGE.partition(".")[2])(_CodedFailures(_ReceiptAnswer(block_of)))
    app.query(COUNTS_QUERY)(_CodedFailures(CountsAnswer(block_of)))
    app.train()(_CodedFailures(_TaskAnswer(block_of)))
    return app


def failure_code(error: Exception) -> NodeFailure:
    """Return all that may leave of an error: to which class it belongs."""
    match error:
        case TaskRefusedError():
            return NodeFailure.TASK_REFUSED
        case StoreError():
            return NodeFailure.STORE_UNUSABLE
        case InputError():
            return NodeFailure.MISCONFIGURED
        case ImportError():
            return NodeFailure.PART_MISSING
        case MemoryError():
            return NodeFailure.OUT_OF_MEMORY
        case _:
            return NodeFailure.OTHER


@dataclass(frozen=True, slots=True)
class _CodedFailures:
    """Answers as `handler` does, or with the code of its failure; the text stays in the log."""

    handler: Callable[[Message, Context], Message]

    def __call__(self, message: Message, context: Context) -> Message:
        try:
            return self.handler(message, context)
        except Exception as error:
            logger.exception("a message of the server could not be answered")
            return Message(Error(APP_FAILED, failure_code(error).value), reply_to=message)


@dataclass(frozen=True, slots=True)
class _DevicesAnswer:
    """Answers which devices are behind the node."""

    block_of: Callable[[Context], DeviceBlock | RelayingBlock]

    def __call__(self, message: Message, context: Context) -> Message:
        device_ids = list(self.block_of(context).device_ids)
        record = ConfigRecord({"device_ids": device_ids})
        return Message(RecordDict({DEVICES_RECORD: record}), reply_to=message)


@dataclass(frozen=True, slots=True)
class _ReceiptAnswer:
    """Hands the server's receipt to the device that keeps a ledger; the answer is empty."""

    block_of: Callable[[Context], DeviceBlock | RelayingBlock]

    def __call__(self, message: Message, context: Context) -> Message:
        try:
            receipt = ReleaseReceipt.from_plain(message.content.config_records[RECEIPT_RECORD])
        except (KeyError, ValueError) as error:
            raise TaskRefusedError(f"not a receipt: {error}") from error
        block = self.block_of(context)
        if isinstance(block, ReceivingBlock):
            block.keep_receipt(receipt)
        return Message(RecordDict(), reply_to=message)


@dataclass(frozen=True, slots=True)
class _TaskAnswer:
    """Trains the invited devices and answers with the sum of their updates."""

    block_of: Callable[[Context], DeviceBlock | RelayingBlock]

    def __call__(self, message: Message, context: Context) -> Message:
        block = self.block_of(context)
        task, weights = _read_task(message)
        unknown = set(task.device_ids) - set(block.device_ids)
        if unknown:
            raise TaskRefusedError(
                f"{len(unknown)} of the devices invited are not behind this node"
            )
        if isinstance(block, RelaysTasks):
            waited_s = datetime.now(UTC).timestamp() - message.metadata.created_at
            total, num_devices, receipts = block.relay_task(task, weights, waited_s=waited_s)
        else:
            total, num_devices, receipts = _answered(block, task, weights)
        contribution = Contribution(
            stream=task.stream,
            index=task.index,
            num_devices=num_devices,
            receipts=receipts,
        )
        answer = RecordDict({SUM_RECORD: ArrayRecord({FLAT_ARRAY: Array(total)})})
        answer[CONTRIBUTION_RECORD] = ConfigRecord({**contribution.to_plain()})
        return Message(answer, reply_to=message)


def _answered(
    block: DeviceBlock, task: RoundTask, weights: NDArray[np.float32]
) -> tuple[NDArray[np.int64], int, tuple[str, ...]]:
    """Return the sum, how many devices are in it, and what their ledgers say."""
    path = (
        block.training_path
        if isinstance(block, BlockWithTrainingPath)
        else TrainingPath.CLOSED_FORM
    )

    grid = grid_of(task.clipping_norm, has_norm_bit=task.has_norm_bit)
    present = _PresentDevices(block, task)

    def train() -> NDArray[np.int64]:
        return train_block(_trainer(task.recipe, path), present, weights=weights, grid=grid)

    if not task.device_ids or not isinstance(block, AccountedBlock):
        return train(), present.num_devices, ()
    total, receipts = block.answer(task, train)
    num_devices = len(task.device_ids)
    if total is None:
        return np.zeros(grid.size(weights.size), np.int64), num_devices, receipts
    return total, num_devices, receipts


@dataclass(slots=True)
class _PresentDevices:
    """Rows and randomness of the invited devices that can be reached; counts them on the way."""

    block: DeviceBlock
    task: RoundTask
    num_devices: int = 0

    def __iter__(self) -> Iterator[tuple[TrainingRows, NoiseSource]]:
        step = self.task
        for device_id in step.device_ids:
            try:
                rows = self.block.rows(device_id)
            except DeviceAwayError as error:
                logger.warning("step %d of stream %s: %s", step.index, step.stream, error)
                continue
            self.num_devices += 1
            yield rows, self.block.source(device_id, stream=step.stream, index=step.index)


def _read_task(message: Message) -> tuple[RoundTask, NDArray[np.float32]]:
    try:
        task = RoundTask.from_plain(message.content.config_records[TASK_RECORD])
        weights = message.content.array_records[WEIGHTS_RECORD][FLAT_ARRAY].numpy()
    except (KeyError, ValueError) as error:
        raise TaskRefusedError(f"not a task that this version can read: {error}") from error
    return task, weights.astype(np.float32)


def _own_block(context: Context) -> DeviceBlock | RelayingBlock:
    now = datetime.now(UTC)
    if SITE_KEY in context.node_config:
        # A gateway neither reads telemetry nor trains, and has many devices to hold.
        from .gateway.block import own_gateway

        return own_gateway(context.node_config, now=now)
    from .own_training import own_device

    return own_device(context.node_config, now=now)


@lru_cache(maxsize=2)
def _trainer(recipe: LocalRecipe, path: TrainingPath) -> LocalTrainer:
    """Keep the network of the last recipes: building one takes as long as training a device."""
    return local_trainer(recipe, path=path)


app = client_app(_own_block)
"""The ClientApp of a real device, or of a gateway: what its SuperNode's configuration names."""
