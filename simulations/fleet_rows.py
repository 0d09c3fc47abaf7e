"""Training rows of a whole fleet dataset, and the part of it that is held out to look at.

In a real fleet each device makes its rows itself, from its own readings. Here the same functions
run over a fleet dataset, devices in slices so that memory stays small.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from models.featurize import featurize
from models.fleet_dataset import open_fleet
from models.held_out_devices import HELD_OUT_SHARE, held_out_devices
from models.labels import OwnerAnswers, label_packs
from models.training_rows import (
    LEAST_ROWS,
    MAX_ROWS,
    PackOutcomes,
    TrainingRows,
    first_packs,
    training_rows,
)

from .errors import SimulationsError

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from models.telemetry import DeviceProfiles, Outcomes, Telemetry


DEVICES_A_SLICE = 256


class FleetRowsError(SimulationsError):
    """A fleet dataset cannot be trained on.

    Attributes:
        where: the folder.
    """

    def __init__(self, where: object, what: str, remedy: str) -> None:
        """Say where, what is wrong and what to do."""
        self.where = str(where)
        super().__init__(f"{where}: {what}; {remedy}")


@dataclass(frozen=True, slots=True)
class FleetRows:
    """What a simulated federation works with.

    Attributes:
        device_ids: devices that are enrolled, those without enough rows too.
        training: their rows by rule labels, as devices make them; `device` points into
            `device_ids`.
        held_out: rows of devices that never train, by the true outcomes: what is judged on.
    """

    device_ids: tuple[str, ...]
    training: TrainingRows
    held_out: TrainingRows


def fleet_rows(directory: Path, *, held_out_share: float = HELD_OUT_SHARE) -> FleetRows:
    """Make the training rows of a fleet dataset.

    Args:
        directory: of the fleet dataset; it must hold outcomes.
        held_out_share: part of the devices, chosen by identifier, that never trains.

    Raises:
        FleetRowsError: there are no outcomes, or no device has enough rows.
        DatasetError: the dataset cannot be read.
    """
    fleet = open_fleet(directory)
    if not fleet.has_outcomes():
        raise FleetRowsError(
            directory, "has no outcomes to learn from", "use a fleet with outcomes.parquet"
        )
    ids = tuple(str(device_id) for device_id in fleet.profiles.device_id)
    is_held_out = held_out_devices(ids, share=held_out_share)
    training, held_out = _rows_of_both(
        fleet.telemetry(),
        fleet.profiles,
        answers=fleet.answers(),
        outcomes=fleet.outcomes(),
        is_held_out=is_held_out,
    )
    if len(training) == 0:
        raise FleetRowsError(
            directory,
            f"no device has {LEAST_ROWS} days with features before its outcome",
            "use a fleet with a longer history",
        )
    enrolled = np.flatnonzero(~is_held_out)
    position = np.full(len(ids), -1, np.intp)
    position[enrolled] = np.arange(len(enrolled))
    return FleetRows(
        device_ids=tuple(ids[index] for index in enrolled),
        training=replace(training, device=position[training.device]),
        held_out=held_out,
    )


def _rows_of_both(
    telemetry: Telemetry,
    profiles: DeviceProfiles,
    *,
    answers: OwnerAnswers | None,
    outcomes: Outcomes,
    is_held_out: NDArray[np.bool_],
) -> tuple[TrainingRows, TrainingRows]:
    """Make the rows of enrolled devices by rule, and of held-out devices by the truth.

    Devices go in slices, and each is featurised once; `device` points into `profiles`.
    """
    truth = first_packs(outcomes)
    training: list[TrainingRows] = []
    held_out: list[TrainingRows] = []
    for start in range(0, len(profiles), DEVICES_A_SLICE):
        stop = min(start + DEVICES_A_SLICE, len(profiles))
        part, owners = telemetry.devices(start, stop), profiles.take(slice(start, stop))
        table = featurize(part, owners)
        of_rule = label_packs(part, owners, answers=_answers_between(answers, start, stop))
        by_rule = training_rows(table, of_rule, max_rows=MAX_ROWS)
        of_truth = _packs_between(truth, start, stop)
        by_truth = training_rows(table, of_truth, max_rows=None, least_rows=1)
        for rows, kept, parts in (
            (by_rule, ~is_held_out[start:stop], training),
            (by_truth, is_held_out[start:stop], held_out),
        ):
            chosen = rows.take(kept[rows.device])
            parts.append(replace(chosen, device=chosen.device + start))
    return _stacked(training), _stacked(held_out)


def _stacked(parts: list[TrainingRows]) -> TrainingRows:
    """Stack slices whose devices are numbered already."""
    return TrainingRows(
        device=np.concatenate([rows.device for rows in parts]),
        features=np.concatenate([rows.features for rows in parts]),
        exposure=np.concatenate([rows.exposure for rows in parts]),
        event_bin=np.concatenate([rows.event_bin for rows in parts]),
        cause=np.concatenate([rows.cause for rows in parts]),
    )


def _packs_between(packs: PackOutcomes, start: int, stop: int) -> PackOutcomes:
    wanted = (packs.device >= start) & (packs.device < stop)
    return PackOutcomes(
        device=packs.device[wanted] - start,
        pack=packs.pack[wanted],
        known_until_s=packs.known_until_s[wanted],
        failed_at_s=packs.failed_at_s[wanted],
        cause=packs.cause[wanted],
    )


def _answers_between(answers: OwnerAnswers | None, start: int, stop: int) -> OwnerAnswers | None:
    if answers is None:
        return None
    wanted = (answers.device >= start) & (answers.device < stop)
    return OwnerAnswers(
        device=answers.device[wanted] - start,
        failed_at_s=answers.failed_at_s[wanted],
        cause=answers.cause[wanted],
    )
