"""Who is invited to a step: by stable identifier, public schedule and participation history alone.

Nothing that a device reports or does decides it: not its data, its availability, its speed or
whether it answered before. Otherwise one device's absence could admit another, and the accounting,
which compares worlds that differ in one device's contributions, would not hold. The history is that
of the device's whole life, as its own ledger says it where that is more.
"""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

_NEVER = -(2**40)


@dataclass(frozen=True, slots=True, kw_only=True)
class Schedule:
    """A public schedule: cohorts in turn, by a fixed order of all devices.

    Step t invites the positions t·n … (t+1)·n − 1 of the order, counted round and round.

    Attributes:
        population_size: N, number of enrolled devices.
        cohort_size: n, number of devices invited to each step.
        num_rounds: T, number of steps.
    """

    population_size: int
    cohort_size: int
    num_rounds: int

    def __post_init__(self) -> None:
        """Refuse a schedule that cannot be kept."""
        if self.num_rounds < 1:
            raise ValueError(f"num_rounds must be at least 1, got {self.num_rounds}")
        if not 1 <= self.cohort_size <= self.population_size:
            raise ValueError(
                f"cohort_size must lie in 1..{self.population_size} (the enrolled devices), "
                f"got {self.cohort_size}"
            )

    @property
    def participations(self) -> int:
        """The most steps to which one device is invited: k = ⌈T·n/N⌉."""
        return math.ceil(self.num_rounds * self.cohort_size / self.population_size)

    @property
    def min_separation(self) -> int:
        """The least number of steps between two invitations of a device: b = ⌊N/n⌋."""
        return self.population_size // self.cohort_size


@dataclass(frozen=True, slots=True)
class CohortHistory:
    """What the server keeps of each device, in the order of the identifiers.

    Attributes:
        participations: int64, shape (n_devices,): steps to which it was invited.
        last_index: int64, shape (n_devices,): the last of them; far below 0 for none.
    """

    participations: NDArray[np.int64]
    last_index: NDArray[np.int64]

    @staticmethod
    def empty(population_size: int) -> CohortHistory:
        """Return the history of devices that were never invited."""
        return CohortHistory(
            participations=np.zeros(population_size, np.int64),
            last_index=np.full(population_size, _NEVER, np.int64),
        )

    def after(self, cohort: NDArray[np.intp], *, index: int) -> CohortHistory:
        """Return the history once a cohort was invited to step `index`.

        Every invited device is charged, whether it answers or not.
        """
        participations, last_index = self.participations.copy(), self.last_index.copy()
        participations[cohort] += 1
        last_index[cohort] = index
        return CohortHistory(participations=participations, last_index=last_index)

    @property
    def most_participations(self) -> int:
        """The greatest number of steps to which any one device was invited."""
        return int(self.participations.max(initial=0))


def invitation_order(device_ids: Sequence[str], *, stream: str) -> NDArray[np.intp]:
    """Order all devices by SHA-256 of stream and identifier, which nobody can choose.

    Args:
        device_ids: stable identifiers, each once.
        stream: identifier of the run of rounds.

    Returns:
        int, shape (n_devices,): positions in `device_ids`.
    """
    digests = [
        hashlib.sha256(f"{stream}\n{device_id}".encode()).digest() for device_id in device_ids
    ]
    return np.array(sorted(range(len(digests)), key=digests.__getitem__), dtype=np.intp)


def within_owner_cap(
    device_ids: Sequence[str],
    order: NDArray[np.intp],
    *,
    owners: Mapping[str, str],
    max_devices_per_owner: int,
) -> NDArray[np.intp]:
    """Keep of each owner the first few devices in the order of invitations; the others never train.

    Args:
        device_ids: stable identifiers, each once.
        order: as `invitation_order` gives it.
        owners: of devices; one without an owner here is the only device of an owner of its own.
        max_devices_per_owner: most devices of one owner in a stream.

    Returns:
        int, shape (≤ n_devices,): positions in `device_ids`, ascending.
    """
    taken: dict[str, int] = {}
    kept = []
    for position in order.tolist():
        owner = owners.get(device_ids[position])
        if owner is not None:
            taken[owner] = taken.get(owner, 0) + 1
            if taken[owner] > max_devices_per_owner:
                continue
        kept.append(position)
    return np.array(sorted(kept), dtype=np.intp)


def num_within_owner_cap(
    device_ids: Sequence[str], *, owners: Mapping[str, str], max_devices_per_owner: int
) -> int:
    """Return how many devices `within_owner_cap` keeps, whatever their order."""
    any_order = np.arange(len(device_ids))
    kept = within_owner_cap(
        device_ids, any_order, owners=owners, max_devices_per_owner=max_devices_per_owner
    )
    return len(kept)


def select_cohort(
    order: NDArray[np.intp],
    *,
    schedule: Schedule,
    history: CohortHistory,
    index: int,
    max_participations: int,
    min_separation: int,
    may: NDArray[np.bool_] | None = None,
) -> NDArray[np.intp]:
    """Select the devices invited to step `index`.

    The next n devices in the order, from the step's place in the schedule, that have participations
    left and were not invited within the separation.

    Args:
        order: as `invitation_order` gives it.
        schedule: public.
        history: of every device, as the server counts it.
        index: the step.
        max_participations: k, after which a device is never invited again.
        min_separation: b.
        may: bool, shape (n_devices,): who has budget left over all streams; None for everybody.

    Returns:
        int, shape (≤ n,): positions in the device list, ascending. Fewer than n where too few are
        left; the policy's least cohort decides whether the round runs with empty places.
    """
    size = len(order)
    start = index * schedule.cohort_size % size
    turned = np.concatenate([order[start:], order[:start]])
    chosen = (history.participations[turned] < max_participations) & (
        index - history.last_index[turned] >= min_separation
    )
    if may is not None:
        chosen &= may[turned]
    return np.sort(turned[chosen][: schedule.cohort_size])
