"""The correction in force, for a prediction that has nothing to learn: most of them.

At most one step in 14 days is made, whatever is recorded, so on other days one small row tells the
factor, and the rule need not be loaded.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from models.feature_spec import FEATURE_SPEC_VERSION
from models.telemetry import SECONDS_PER_DAY

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime

    from models.featurize import FeatureTable

    from ..store.sqlite_file import StoreFile

FACT = "personalisation"
FORMAT = 1


def own_log_factor(
    store: StoreFile, table: FeatureTable, days_p50: float, *, model_digest: str, now: datetime
) -> float:
    """Return the device's own correction, after judging the forecast that waits where it is due.

    Args:
        store: of the device.
        table: its features now; their status is ok.
        days_p50: what the model alone says.
        model_digest: of the bundle that says it.
        now: aware time.

    Returns:
        The logarithm of the factor on days to failure, −0.7 to 0.
    """
    value = store.fact(FACT)
    if (
        isinstance(value, dict)
        and value.get("model_digest") == model_digest
        and is_of_pack(value, int(table.pack_since_s[0]))
    ):
        day = now.timestamp() // SECONDS_PER_DAY
        found = value.get("log_factor")
        if isinstance(found, float) and _is_same(value, day):
            return found
    from .learning import learn

    return learn(store, table, days_p50, model_digest=model_digest, now=now)


def is_of_pack(value: Mapping[str, Any], pack_since_s: int) -> bool:
    """Tell whether what was learnt is of this pack and of these features.

    A pack's first reading may be found to be earlier than was known; a later one is a new pack's.
    """
    since = value.get("pack_since_s")
    return (
        value.get("format") == FORMAT
        and value.get("feature_spec_version") == FEATURE_SPEC_VERSION
        and isinstance(since, int)
        and pack_since_s <= since + SECONDS_PER_DAY
    )


def _is_same(value: Mapping[str, Any], day: float) -> bool:
    first, end = value.get("same_from_day"), value.get("same_until_day")
    return isinstance(first, float) and isinstance(end, float) and first <= day < end
