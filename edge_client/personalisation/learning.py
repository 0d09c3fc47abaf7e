"""What a device has learnt: kept in its store, judged when a forecast is due, forgotten on demand.

The rule is `models.personal_correction`. It belongs to one pack, and begins anew with another; to a
new model it is handed on.
"""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from models.feature_spec import FEATURE_SPEC_VERSION
from models.personal_correction import (
    JUDGED_AFTER_DAYS,
    KEPT_FOR_NEW_MODEL,
    LEAST_LOG_FACTOR,
    Correction,
    Forecast,
    forecast_of,
    handed_on,
    learnt,
)
from models.telemetry import SECONDS_PER_DAY

from ..errors import StoreBusyError
from .in_force import FACT, FORMAT, is_of_pack

if TYPE_CHECKING:
    from datetime import datetime

    from models.featurize import FeatureTable

    from ..store.sqlite_file import StoreFile

PARAMETERS = Correction._fields


class PersonalState(NamedTuple):
    """What is kept.

    Attributes:
        model_digest: of the bundle whose forecast waits, and to which the rest was brought.
        feature_spec_version: by which they were made.
        pack_since_s: first reading of the pack, seconds since the epoch.
        correction: the seven parameters.
        waiting: the forecast that is judged next.
        reduced_day: on which the rest was last given less weight for a new model, days since the
            epoch; None where it never was.
    """

    model_digest: str
    feature_spec_version: str
    pack_since_s: int
    correction: Correction
    waiting: Forecast
    reduced_day: float | None = None

    @property
    def log_factor(self) -> float:
        """Logarithm of the factor on days to failure, 0 = none."""
        return float(self.correction.log_factor[0])

    @property
    def num_judged(self) -> int:
        """Forecasts that were judged."""
        return int(max(self.correction.num_margins[0], self.correction.num_resistances[0]))

    def to_json(self) -> dict[str, Any]:
        """Return it as a named value."""
        return {
            "format": FORMAT,
            "model_digest": self.model_digest,
            "feature_spec_version": self.feature_spec_version,
            "pack_since_s": self.pack_since_s,
            "log_factor": self.log_factor,
            "same_from_day": float(self.waiting.day[0]),
            "same_until_day": float(self.waiting.day[0]) + JUDGED_AFTER_DAYS,
            "parameters": [_number(value) for value in self.correction],
            "waiting": [_number(value) for value in self.waiting],
            "reduced_day": self.reduced_day,
        }


def kept_state(store: StoreFile) -> PersonalState | None:
    """Return what was learnt; None where nothing was, or it is of another format.

    Raises:
        StoreDamagedError: it is not what was kept.
    """
    value = store.fact(FACT)
    try:
        if value is None or value["format"] != FORMAT:
            return None
        correction = Correction(*_arrays(value["parameters"], len(PARAMETERS)))
        reduced_day = value.get("reduced_day")
        state = PersonalState(
            model_digest=str(value["model_digest"]),
            feature_spec_version=str(value["feature_spec_version"]),
            pack_since_s=int(value["pack_since_s"]),
            correction=correction,
            waiting=Forecast(*_arrays(value["waiting"], len(Forecast._fields))),
            reduced_day=None if reduced_day is None else float(reduced_day),
        )
    except (KeyError, TypeError, ValueError):
        return None
    is_sound = np.isfinite(np.array(correction)).all()
    return state if is_sound and LEAST_LOG_FACTOR <= state.log_factor <= 0.0 else None


def learn(
    store: StoreFile, table: FeatureTable, days_p50: float, *, model_digest: str, now: datetime
) -> float:
    """Judge the forecast that waits, where it is due, and return the correction from now on.

    A prediction does not depend on the disk: what cannot be kept now is judged the next time. Two
    models that take turns cost what was learnt its weight once, not at each turn: it is reduced at
    most once in the time in which a forecast is judged.

    Args:
        store: of the device.
        table: its features now; their status is ok.
        days_p50: what the model alone says.
        model_digest: of the bundle that says it.
        now: aware time.

    Returns:
        The logarithm of the factor on days to failure, −0.7 to 0.
    """
    before = kept_state(store)
    pack_since_s = int(table.pack_since_s[0])
    if before is None or not is_of_pack(before.to_json(), pack_since_s):
        before = PersonalState(
            model_digest, FEATURE_SPEC_VERSION, pack_since_s, Correction.none(), Forecast.none()
        )
    day = np.array([now.timestamp() // SECONDS_PER_DAY])
    today = forecast_of(table.features, np.array([days_p50]), day)
    correction, waiting, reduced_day = before.correction, before.waiting, before.reduced_day
    if before.model_digest != model_digest:
        is_recent = reduced_day is not None and 0 <= day[0] - reduced_day < JUDGED_AFTER_DAYS
        weight = 1.0 if is_recent else KEPT_FOR_NEW_MODEL
        correction, waiting = handed_on(correction, waiting, today, weight=weight)
        reduced_day = reduced_day if is_recent else float(day[0])
    correction, waiting = learnt(correction, waiting, today)
    after = before._replace(
        model_digest=model_digest, correction=correction, waiting=waiting, reduced_day=reduced_day
    )
    if after.to_json() != before.to_json():
        with suppress(StoreBusyError), store.waiting_briefly():
            store.keep_fact(FACT, after.to_json())
    return after.log_factor


def reset(store: StoreFile) -> bool:
    """Forget what was learnt; tells whether there was anything.

    Raises:
        StoreBusyError: the disk refuses, or another process holds the store.
    """
    if store.fact(FACT) is None:
        return False
    with store.transaction() as connection:
        connection.execute("DELETE FROM fact WHERE name = ?", (FACT,))
    return True


def _arrays(values: list[float | None], count: int) -> list[np.ndarray]:
    if len(values) != count:
        raise ValueError(f"{count} numbers are expected, got {len(values)}")
    return [np.array([np.nan if value is None else float(value)]) for value in values]


def _number(value: np.ndarray) -> float | None:
    number = float(value[0])
    return number if np.isfinite(number) else None
