"""The features of a store's device, from its closed days and what was recorded since."""

from __future__ import annotations

from contextlib import suppress
from datetime import UTC, datetime
from functools import lru_cache
from typing import TYPE_CHECKING

from models.feature_window import FeatureWindow, features_now
from models.telemetry import DeviceProfiles, day_of

from .errors import StoreBusyError

if TYPE_CHECKING:
    from models.featurize import FeatureTable
    from models.telemetry import DeviceProfile

    from .telemetry_store import TelemetryStore


def current_features(store: TelemetryStore, *, now: datetime) -> tuple[FeatureTable, bool]:
    """Compute the features at `now`, and keep the closed days once a day.

    The window of closed days is one row of the store's daily rows, under its last day: a reading
    that is recorded later for one of its days takes it away, and all readings are read again.

    Args:
        store: of the device.
        now: aware time.

    Returns:
        The features, none where nothing was recorded, and whether a day was closed or all readings
        were read: then what is known of the pack may have changed.
    """
    now_s = int(now.timestamp())
    profiles = _table_of(store.profile)
    window = _kept_window(store, now_s)
    closes_a_day = window is None or window.closed_day < day_of(now_s) - 1
    last_sequence = store.last_sequence() if closes_a_day else 0
    since = None
    if window is not None:
        since = datetime.fromtimestamp(window.closed_until_s + 1, UTC)
    table, closed = features_now(
        store.telemetry(since=since),
        profiles,
        now_s=now_s,
        window=window,
        references=store.references_beyond_the_ring() if window is None else None,
    )
    if closed is not None and closed is not window:
        # Made again the next time where the disk refuses: a prediction does not depend on it.
        with suppress(StoreBusyError):
            store.keep_day_rows(
                [(closed.closed_day, closed.to_bytes())], after_sequence=last_sequence
            )
    return table, window is None or closed is not window


@lru_cache(maxsize=1)
def _table_of(profile: DeviceProfile) -> DeviceProfiles:
    return DeviceProfiles.of([profile])


def _kept_window(store: TelemetryStore, now_s: int) -> FeatureWindow | None:
    """Return the latest window that was closed before `now_s`, where one is kept."""
    yesterday = day_of(now_s) - 1
    for day, content in reversed(store.day_rows(yesterday) or store.day_rows(0)):
        window = FeatureWindow.from_bytes(content)
        if window is not None and window.closed_day == day and window.closed_until_s < now_s:
            return window
    return None
