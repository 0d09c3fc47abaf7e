"""What only the simulation knows: the true state of every pack on every day, and its end."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING

import numpy as np

from models.telemetry import CAUSES, SECONDS_PER_DAY, Outcomes

from .censoring import FAILED

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from .lives import Days

_STATES = ("capacity_mah", "resistance_ratio", "swelling")


@dataclass(frozen=True, slots=True, kw_only=True)
class Packs:
    """Every pack of every device, one row each, by device and pack number.

    Attributes:
        device: int64, row of the device in the fleet.
        pack_number: int64, 0 for the pack with which the device entered.
        installed_at_s: int64; for pack 0 the start of the study.
        ended_at_s: float64, end of its observation.
        ending: object array of str, one of `censoring.ENDINGS`.
        cause: int64, position in `models.telemetry.CAUSES`, -1 unless it failed.
        capacity_when_new_mah: float64.
        is_bad_lot: bool.
    """

    device: NDArray[np.int64]
    pack_number: NDArray[np.int64]
    installed_at_s: NDArray[np.int64]
    ended_at_s: NDArray[np.float64]
    ending: NDArray[np.object_]
    cause: NDArray[np.int64]
    capacity_when_new_mah: NDArray[np.float64]
    is_bad_lot: NDArray[np.bool_]

    def __len__(self) -> int:
        """Return the number of packs."""
        return len(self.device)

    def rows(self, keep: NDArray[np.bool_] | NDArray[np.intp]) -> Packs:
        """Return some of the packs."""
        return Packs(**{f.name: getattr(self, f.name)[keep] for f in fields(self)})


def join_packs(parts: Sequence[Packs]) -> Packs:
    """Put packs together, in their order."""
    columns = {f.name: np.concatenate([getattr(p, f.name) for p in parts]) for f in fields(Packs)}
    return Packs(**columns)


@dataclass(frozen=True, slots=True, kw_only=True)
class FleetTruth:
    """The hidden state of a simulated fleet; no device and no server ever sees it.

    Attributes:
        device_index: int64, shape (n_devices,), the number that regenerates the device.
        day_start_s: int64, shape (n_days,), midnights; the state is that at the end of the day.
        capacity_mah: float32, shape (n_devices, n_days), of the pack installed, at 25 degrees
            Celsius; NaN before the device has come and once it has gone. No days where states
            were not noted.
        resistance_ratio: float32, same shape, against the pack's resistance when new.
        swelling: float32, same shape, 1 = failed.
        pack_number: int8, same shape, -1 before the device has come and once it has gone.
        is_silent: bool, shape (n_devices,): a failure ended every sending, for ever.
        retired_at_s: float64, shape (n_devices,), NaN = not within the study.
        packs: every pack's life.
    """

    device_index: NDArray[np.int64]
    day_start_s: NDArray[np.int64]
    capacity_mah: NDArray[np.float32]
    resistance_ratio: NDArray[np.float32]
    swelling: NDArray[np.float32]
    pack_number: NDArray[np.int8]
    is_silent: NDArray[np.bool_]
    retired_at_s: NDArray[np.float64]
    packs: Packs

    @staticmethod
    def of_days(
        days: Days | None,
        *,
        device_index: NDArray[np.int64],
        start_s: int,
        num_days: int,
        enters_day: NDArray[np.float64],
        sends_until_day: NDArray[np.float64],
        is_silent: NDArray[np.bool_],
        retired_at_s: NDArray[np.float64],
        packs: Packs,
    ) -> FleetTruth:
        """Return the truth from noted days, or without states.

        Args:
            days: what was noted of them, if anything.
            device_index: of the devices.
            start_s: of the study.
            num_days: lived so far.
            enters_day: first day of each device.
            sends_until_day: when each device goes, infinite = never.
            is_silent: as in the truth.
            retired_at_s: as in the truth.
            packs: by device and number.
        """
        count = len(device_index)
        if days is None:
            numbers = np.arange(num_days, dtype=np.int64)
            states = {name: np.empty((count, 0), np.float32) for name in _STATES}
            number = np.empty((count, 0), np.int8)
        else:
            numbers = days.numbers[:, 0]
            absent = days.numbers + 1.0 > sends_until_day
            absent |= days.numbers < enters_day
            absent = absent.T
            noted = (days.capacity_mah, days.resistance, days.swelling)
            states = {
                name: np.where(absent, np.float32(np.nan), state.T)
                for name, state in zip(_STATES, noted, strict=True)
            }
            number = np.where(absent, np.int8(-1), days.pack_number.T)
        return FleetTruth(
            device_index=device_index,
            day_start_s=start_s + SECONDS_PER_DAY * numbers,
            pack_number=number,
            is_silent=is_silent,
            retired_at_s=retired_at_s,
            packs=packs,
            **states,
        )

    @property
    def first_packs(self) -> Packs:
        """The packs with which the devices entered, in the order of the devices."""
        return self.packs.rows(self.packs.pack_number == 0)

    @property
    def replaced_at_s(self) -> NDArray[np.float64]:
        """When each device got its second pack; NaN = not within the study."""
        replaced = np.full(len(self.device_index), np.nan)
        second = self.packs.rows(self.packs.pack_number == 1)
        replaced[second.device] = second.installed_at_s
        return replaced

    @property
    def silent_failure_share(self) -> float:
        """Share of first-pack failures after which the device never reported again.

        No such device can train on its own failure: the survivorship bias of learning on devices.
        NaN without failures.
        """
        first = self.first_packs
        failed = first.ending == FAILED
        return float(self.is_silent[failed].mean()) if failed.any() else float("nan")

    def outcomes(self, device_ids: tuple[str, ...]) -> Outcomes:
        """Return what became of the first pack of each device."""
        first = self.first_packs
        failed = first.ending == FAILED
        names = np.array([*CAUSES, None], dtype=object)
        return Outcomes(
            device_ids=device_ids,
            observed_until_s=np.floor(first.ended_at_s).astype(np.int64),
            failed_at_s=np.where(failed, np.floor(first.ended_at_s), np.nan),
            primary_cause=names[first.cause],
        )

    @staticmethod
    def joined(blocks: Sequence[FleetTruth]) -> FleetTruth:
        """Put the truths of blocks of devices together, in their order."""
        sizes = [len(block.device_index) for block in blocks]
        starts = np.concatenate([[0], np.cumsum(sizes)[:-1]])
        packs = replace(
            join_packs([block.packs for block in blocks]),
            device=np.concatenate(
                [block.packs.device + start for block, start in zip(blocks, starts, strict=True)]
            ),
        )
        whole = {
            f.name: np.concatenate([getattr(block, f.name) for block in blocks])
            for f in fields(FleetTruth)
            if f.name not in {"packs", "day_start_s"}
        }
        return FleetTruth(day_start_s=blocks[0].day_start_s, packs=packs, **whole)
