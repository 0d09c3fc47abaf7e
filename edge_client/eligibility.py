"""Whether a device takes part in a step that it is invited to: its own decision, told to nobody.

A rule over conditions, both passed in. A device that sits out answers zeros of the same form as any
update, and debits the step like any other: whether it sat out must not show, and the server counts
the invitation in any case. Whether its budget is left is decided before, by the ledger's own rules
(`privacy.budget`): what is not left cannot be debited.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import StrEnum
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable

SAT_OUT_FACT: Final = "training_sat_out"
"""Named value of the store: the last step, where the device sat it out, and why; else None."""
POLL_S: Final = 15.0
"""Seconds between two looks of a device that waits until it may train."""
WAIT_SHARE: Final = 0.5
"""Share of a round's deadline that may be waited; the rest is for training and for the way."""
USUAL_LEAST_PERCENT: Final = 30.0
USUAL_MOST_LOAD: Final = 1.0


class SittingOut(StrEnum):
    """Why a device sits out."""

    NOT_CHARGING = "not_charging"
    BATTERY_LOW = "battery_low"
    BUSY = "busy"
    METERED = "metered"
    CONDITIONS_UNKNOWN = "conditions_unknown"
    TOO_LITTLE_HISTORY = "too_little_history"


@dataclass(frozen=True, slots=True, kw_only=True)
class Conditions:
    """How a device finds itself at one moment; None where nothing says it.

    Attributes:
        has_battery: whether it runs from a battery at all.
        is_charging: whether the battery is on external power.
        battery_percent: state of charge, 0 to 100.
        load_per_core: load average of the last minute over the number of cores.
        is_idle: the firmware's word on it, which counts before the load.
        is_metered: whether the network costs money by volume.
        is_told: whether what the firmware was to tell is there, and new.
        num_rows: training rows that the device has; None before they were counted.
    """

    has_battery: bool = False
    is_charging: bool | None = None
    battery_percent: float | None = None
    load_per_core: float | None = None
    is_idle: bool | None = None
    is_metered: bool | None = False
    is_told: bool = True
    num_rows: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class EligibilityRule:
    """When a device trains; what is on power binds only a device with a battery.

    Attributes:
        needs_charging: only while the battery is on external power.
        least_battery_percent: only from this state of charge on; 0 does not look.
        most_load_per_core: only up to this load; 0 does not look; None is 1.0 for a device with a
            battery, and does not look on one without.
        allows_metered: also on a network that costs money by volume.
        wait_s: seconds for which an invited device waits until it may train; in a round that says
            its deadline no longer than half of that.
    """

    needs_charging: bool = True
    least_battery_percent: float = USUAL_LEAST_PERCENT
    most_load_per_core: float | None = None
    allows_metered: bool = False
    wait_s: float = 0.0

    def within(self, deadline_s: float) -> EligibilityRule:
        """Return the rule for a round: whoever waited longer would debit it and be late.

        Args:
            deadline_s: seconds after which the server waits for no reply; 0 where it does not say.
        """
        if not deadline_s:
            return self
        return replace(self, wait_s=min(self.wait_s, WAIT_SHARE * deadline_s))


def reasons_to_sit_out(
    conditions: Conditions, rule: EligibilityRule, *, least_rows: int
) -> tuple[SittingOut, ...]:
    """Decide whether a device takes part.

    Args:
        conditions: of the moment.
        rule: of the device.
        least_rows: rows below which the task has a device sit out.

    Returns:
        Why not, the first first; empty where it takes part.
    """
    found = [
        *_reasons_of_power(conditions, rule),
        _reason_of_load(conditions, rule),
        _reason_of_network(conditions, rule),
        None if conditions.is_told else SittingOut.CONDITIONS_UNKNOWN,
    ]
    if conditions.num_rows is not None and conditions.num_rows < least_rows:
        found.append(SittingOut.TOO_LITTLE_HISTORY)
    return tuple(dict.fromkeys(reason for reason in found if reason is not None))


def wait_until_eligible(
    look: Callable[[float], Conditions],
    rule: EligibilityRule,
    *,
    least_rows: int,
    sleep: Callable[[float], None],
) -> tuple[SittingOut, ...]:
    """Look again and again for as long as the rule waits, until nothing speaks against training.

    Args:
        look: finds the conditions after so many seconds of waiting.
        rule: of the device.
        least_rows: rows below which the task has a device sit out.
        sleep: waits so many seconds.

    Returns:
        Why the device sits out in the end; empty where it takes part.
    """
    waited_s = 0.0
    while reasons := reasons_to_sit_out(look(waited_s), rule, least_rows=least_rows):
        if waited_s >= rule.wait_s:
            break
        step = min(POLL_S, rule.wait_s - waited_s)
        sleep(step)
        waited_s += step
    return reasons


def _reasons_of_power(conditions: Conditions, rule: EligibilityRule) -> list[SittingOut | None]:
    if not conditions.has_battery:
        return []
    return [
        _unless(conditions.is_charging, SittingOut.NOT_CHARGING) if rule.needs_charging else None,
        _unless(
            None
            if conditions.battery_percent is None
            else conditions.battery_percent >= rule.least_battery_percent,
            SittingOut.BATTERY_LOW,
        )
        if rule.least_battery_percent > 0
        else None,
    ]


def _reason_of_load(conditions: Conditions, rule: EligibilityRule) -> SittingOut | None:
    if conditions.is_idle is not None:
        return None if conditions.is_idle else SittingOut.BUSY
    usual = USUAL_MOST_LOAD if conditions.has_battery else 0.0
    most = usual if rule.most_load_per_core is None else rule.most_load_per_core
    if most <= 0:
        return None
    load = conditions.load_per_core
    return _unless(None if load is None else load <= most, SittingOut.BUSY)


def _reason_of_network(conditions: Conditions, rule: EligibilityRule) -> SittingOut | None:
    if rule.allows_metered:
        return None
    is_metered = conditions.is_metered
    return _unless(None if is_metered is None else not is_metered, SittingOut.METERED)


def _unless(is_so: bool | None, reason: SittingOut) -> SittingOut | None:  # noqa: FBT001 - a condition
    if is_so is None:
        return SittingOut.CONDITIONS_UNKNOWN
    return None if is_so else reason
