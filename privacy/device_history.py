"""What a device's ledger says of its past: the facts that `privacy.budget` decides from."""

import math
from collections.abc import Iterable
from functools import lru_cache

from .accountant import mu_for
from .budget import CountHistory, ParticipationHistory, participation_cost
from .discrete_accounting import mu_squared_of_count
from .errors import UnsupportedEventError
from .events import CountAnswer, Event, Participation, RecordLevelSteps

DeviceEvent = Participation | CountAnswer | RecordLevelSteps
"""What a device's ledger holds."""


def device_events(events: Iterable[Event]) -> tuple[DeviceEvent, ...]:
    """Return the events of a device's ledger, oldest first.

    Raises:
        UnsupportedEventError: One that no device's ledger holds: nothing may be spent on top of it.
    """
    found: list[DeviceEvent] = []
    for event in events:
        if not isinstance(event, Participation | CountAnswer | RecordLevelSteps):
            raise UnsupportedEventError(type(event).__name__)
        found.append(event)
    return tuple(found)


def history_of(events: Iterable[Event], *, stream: str) -> ParticipationHistory:
    """Read what a device has taken part in.

    Args:
        events: Of its ledger, oldest first.
        stream: The stream at hand.

    Returns:
        The history; `policy_digest` is that of the stream's first participation.

    Raises:
        UnsupportedEventError: An event that no device's ledger holds.
    """
    of_device = device_events(events)
    taken = [event for event in of_device if isinstance(event, Participation)]
    here = [event for event in taken if event.stream == stream]
    limits = [limits for event in of_device if (limits := _limits(event)) is not None]
    most = [event.max_participations for event in taken if event.max_participations is not None]
    return ParticipationHistory(
        participations=len(here),
        last_index=max((event.index for event in here), default=None),
        mu_squared=_spent_on_updates(of_device),
        elsewhere=len(taken) - len(here),
        max_participations=min(most, default=None),
        mu_squared_limit=min((updates for updates, _ in limits), default=None),
        policy_digest=here[0].policy_digest if here else None,
        is_held_out=any(_is_held_out(event) for event in of_device),
        counts_mu_squared=_spent_on_counts(of_device),
        mu_squared_in_all=min((sum(parts) for parts in limits), default=None),
    )


def count_history_of(events: Iterable[Event], *, channel: str, policy_digest: str) -> CountHistory:
    """Read what a device has answered in counts.

    Args:
        events: Of its ledger, oldest first.
        channel: The channel at hand.
        policy_digest: Of the policy at hand; another policy counts its releases from 0.

    Returns:
        The history. The limits of all policies count, also of those that only updates came under.

    Raises:
        UnsupportedEventError: An event that no device's ledger holds.
    """
    of_device = device_events(events)
    answers = [event for event in of_device if isinstance(event, CountAnswer)]
    here = [one for one in answers if (one.channel, one.policy_digest) == (channel, policy_digest)]
    limits = [limits for event in of_device if (limits := _limits(event)) is not None]
    return CountHistory(
        answers=len(here),
        last_index=max((event.index for event in here), default=None),
        mu_squared=_spent_on_counts(of_device),
        mu_squared_limit=min((counts for _, counts in limits), default=None),
        mu_squared_in_all=min((sum(parts) for parts in limits), default=None),
        is_held_out=any(_is_held_out(event) for event in of_device),
        is_in_training=any(
            not isinstance(event, RecordLevelSteps) and not _is_held_out(event)
            for event in of_device
        ),
        updates_mu_squared=_spent_on_updates(of_device),
    )


def _spent_on_updates(events: Iterable[DeviceEvent]) -> float:
    return math.fsum(_cost(event) for event in events if isinstance(event, Participation))


def _spent_on_counts(events: Iterable[DeviceEvent]) -> float:
    return math.fsum(
        mu_squared_of_count(event.noise_multiplier)
        for event in events
        if isinstance(event, CountAnswer)
    )


def _is_held_out(event: DeviceEvent) -> bool:
    return isinstance(event, CountAnswer) and event.held_out


def _cost(event: Participation) -> float:
    return participation_cost(
        event.noise_multiplier, clip_noise_multiplier=event.clip_noise_multiplier
    )


def _limits(event: DeviceEvent) -> tuple[float, float] | None:
    """Parts of mu squared for updates and for counts under an event's policy, where it says them.

    `update_share` stands beside `epsilon` and `delta`, or none of the three does.
    """
    if isinstance(event, RecordLevelSteps):
        return None
    if event.epsilon is None or event.delta is None or event.update_share is None:
        return None
    most = _greatest_mu_squared(event.epsilon, event.delta)
    return event.update_share * most, (1 - event.update_share) * most


@lru_cache(maxsize=64)
def _greatest_mu_squared(epsilon: float, delta: float) -> float:
    return mu_for(epsilon=epsilon, delta=delta) ** 2
