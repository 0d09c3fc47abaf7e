"""A device's one answer to a step: made by what every real device in rounds is made of, and sealed.

What a rule refuses is answered with zeros of the same form, which follows from what was offered
alone. Nothing is made for an owner who does not agree, nor for a step whose time is over before it
was debited.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from models.network_shape import NUM_WEIGHTS
from models.wire.contribution import Answer, contribution_parts
from models.wire.sealing import SealKey
from models.wire.site_rounds import CountOffer, count_form, update_form
from privacy.adaptive_clipping import grid_of

from ..errors import IdentityError, ParticipationRefusedError, StepOverError
from ..local_training import local_trainer, train_block
from ..provisioning.identity import identity_path, read_identity

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from models.wire.contribution import ContributionForm
    from models.wire.round_material import RoundMaterial
    from models.wire.rounds import RoundTask

    from ..own_training import OwnDevice
    from .kept_step import KeptStep


def made_parts(
    device: OwnDevice, step: KeptStep, material: RoundMaterial, *, left_s: Callable[[], float]
) -> tuple[bytes, ...]:
    """Answer a step, and return the parts in which the answer travels.

    Args:
        device: that answers.
        step: as it was offered.
        material: what it is about.
        left_s: says for how many seconds an answer counts from now on.

    Raises:
        IdentityError: the device has no keys to sign with.
        TaskRefusedError: the owner does not agree, or training is stopped from afar.
        StepOverError: the step's time is over.
        CloneError: store or identity come from another device.
        StoreError: the store cannot be used.
        WireError: the material is not what the offer is about.
    """
    identity = read_identity(device.store)
    if identity is None:
        what = "is not there: a gateway believes signed answers alone"
        raise IdentityError(identity_path(device.store), what, "fedcell-device init --identity")
    if isinstance(step.offer, CountOffer):
        question = step.offer.task_with(material)
        form = count_form(question.question)
        answer = Answer(device.count(question), "")
    else:
        task = replace(step.offer.task_with(material), deadline_s=max(1.0, left_s()))
        form = update_form(task, num_weights=material.weights.size)
        answer = _update(device, task, material.weights, form=form, left_s=left_s)
    return contribution_parts(
        answer,
        step=step.step,
        form=form,
        device=step.offer.device,
        key=identity.signing_key,
        seal_key=SealKey.from_bytes(bytes.fromhex(step.seal_key)),
    )


def _update(
    device: OwnDevice,
    task: RoundTask,
    weights: NDArray[np.float32],
    *,
    form: ContributionForm,
    left_s: Callable[[], float],
) -> Answer:
    zeros = np.zeros(form.num_entries, np.int64)
    if weights.size != NUM_WEIGHTS:
        what = f"the step's network has {weights.size} weights, not {NUM_WEIGHTS}"
        return _refused(device, task, zeros, ParticipationRefusedError("foreign_network", what))
    grid = grid_of(task.clipping_norm, has_norm_bit=task.has_norm_bit)
    (device_id,) = task.device_ids

    def train() -> NDArray[np.int64]:
        trainer = local_trainer(task.recipe, path=device.training_path)
        source = device.source(device_id, stream=task.stream, index=task.index)
        moved = train_block(trainer, [(device.rows(device_id), source)], weights=weights, grid=grid)
        if left_s() <= 0:
            raise StepOverError(f"step {task.index} of {task.stream} was over after training")
        return moved

    try:
        update, receipts = device.answer(task, train)
    except ModuleNotFoundError as error:
        missing = ParticipationRefusedError("part_missing", f"{error.name} is not installed")
        return _refused(device, task, zeros, missing)
    return Answer(zeros if update is None else update, _line(receipts))


def _refused(
    device: OwnDevice, task: RoundTask, zeros: NDArray[np.int64], why: ParticipationRefusedError
) -> Answer:
    return Answer(zeros, _line(device.refuse(task, why)))


def _line(receipts: tuple[str, ...]) -> str:
    return receipts[0] if receipts else ""
