"""What a simulated fleet is made of: every knob, with its unit and its reason."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from datetime import UTC, datetime
from typing import Any

from models.telemetry import CAUSES

from .climates import CLIMATES
from .manufacturing import DEVICE_MODELS

CADENCES_H = (6, 12, 24)

# The first six device models are the oldest; recipes of that time name them alone.
_LEAST_SHARES = {"device_model_mix": 6}
_NAMES_OF_MIX = {
    "climate_mix": tuple(climate.name for climate in CLIMATES),
    "device_model_mix": tuple(model.name for model in DEVICE_MODELS),
    "silent_shares": CAUSES,
}
_SHARES = (
    "aged_share",
    "soc_ceiling_share",
    "bad_lot_share",
    "resistance_prone_share",
    "gradual_share",
    "replacement_share",
    "answer_share",
    "cause_known_share",
    "lost_reading_share",
    "missing_value_share",
    "duplicate_share",
    "new_model_share",
    "habit_change_share",
    "past_knee_share",
)
_LATER_KNOBS = (
    "past_knee_share",
    "new_model",
    "new_model_share",
    "new_model_from_day",
    "new_model_over_days",
    "user_changes_a_year",
    "user_change_sigma",
    "habit_change_share",
)
"""Left out of `repr` while they have their defaults: digests of recipes outlive new knobs."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FleetRecipe:
    """Everything that distinguishes one simulated fleet from another, apart from size and seed.

    With the defaults the 30-day prevalence (share of device-days at risk with a true failure within
    the next 30 days) is 1.6 % over 365 days and 2.2 % over 730 (4,000 devices, seeds 1 and 2).
    The failures are: capacity_fade 42 and 52 %, resistance_growth 19 and 17 %, swelling 10 and
    12 %, charger_fault 15 and 10 %, sudden_death 14 and 9 %; 23 and 18 % of the failed devices are
    silent for ever. Before their end of life, capacity-fade packs lose 0.17-0.90 % (0.13-0.82 %) of
    their health margin a day (10th to 90th percentile, median 0.48 and 0.40 %) at 0.9 full cycles
    a day; cycled cells lose 0.07-1.1 % a full cycle (medians 0.11, 0.16 and 0.89 % in the sets
    of Ma et al. 2022, Zhu et al. 2022 and Severson et al. 2019).

    Shares are fractions, rates are events a year and device, sigmas are of the natural logarithm.
    "Chosen" marks a value that no source gives; it was set so that every cause can be learnt.

    Attributes:
        start_at: first midnight of the simulation, aware UTC.
        cadence_h: hours between readings: 6 (the product's nominal cadence), 12 or 24.
        aged_share: devices that enter with a used pack; the rest enter new.
        max_entry_age_days: oldest pack at entry. Entry is always before any failure: an older pack
            would have been replaced already.
        past_knee_share: packs that may have passed their knee by then; the rest enter before it.
        climate_mix: share of each climate, in the order of `CLIMATES`; need not sum to 1.
        warming_c: added to every ambient temperature, outdoors and indoors, degrees Celsius: a
            hotter climate, or hotter places to stand in.
        device_model_mix: share of each device model, in the order of `DEVICE_MODELS`; models that
            are not named have none. A model's cells are of its chemistry.
        new_model: device model that appears while the study runs; its devices enter new.
        new_model_share: share of all devices that are of it; the rest are as `device_model_mix`
            says.
        new_model_from_day: days from the start to the first of them.
        new_model_over_days: days over which they enter, evenly.
        efc_median: equivalent full cycles a day of the median user.
        efc_sigma: sigma of the users' means.
        efc_shape: shape of the gamma distribution of one user's days (8: variation 35 %).
        soc_ceiling_share: users who stop charging at 80-90 %.
        user_changes_a_year: how often a user changes: another owner, another job for the device;
            chosen.
        user_change_sigma: sigma of the factor that a change puts on the user's mean cycles a day;
            each change starts from the user as drawn.
        habit_change_share: changes that also draw anew where charging stops.
        self_heating_mean_c: cell above ambient while in full use, degrees Celsius.
        self_heating_sd_c: its spread over devices.
        fade_scale: factor on capacity loss against the cell of the law (2014). 1 keeps the law.
        fade_sigma: spread of the rate between packs in equal use. Baumhöfer et al. 2014
            (J. Power Sources 247:332) saw 8.7 % over 48 cells, Harris et al. 2017 (J. Power
            Sources 342:589) 21 %.
        growth_sigma: spread of the rate of resistance growth; chosen.
        capacity_sd: spread of the capacity when new.
        bad_lot_share: packs from a bad lot.
        bad_lot_factor: its factor on all rates of wear.
        resistance_prone_share: packs whose contacts and electrolyte age early; chosen.
        resistance_prone_factor: their factor on resistance growth; chosen.
        knee_soh_mean: state of health at the knee. Cycled cells bend earlier and less sharply, as
            `simulations.knee_fit` shows; scenarios take what it finds. Fleets of these defaults
            are what the first models were trained on, and stay as they are.
        knee_soh_sd: its spread.
        knee_rate_median: s in `degradation`, median over packs.
        knee_rate_sigma: its sigma.
        gradual_share: packs that have hardly a knee. Of 176 cycled cells that reach their end of
            life, those of Severson et al. 2019 fade 14 times as fast before it as in mid-life,
            those of Ma et al. 2022 3.7 times, those of Zhu et al. 2022 0.9 times (medians). One s
            for all would make fleets of the first kind only.
        gradual_factor: factor on s of these packs.
        knee_resistance_gain: growth of resistance for each unit lost past the knee; chosen
            (cycled A123 cells show resistance 1.19 times the first where capacity is at 80 %).
        resistance_limit: lowest and highest ratio to new at which the load browns the device out.
        swelling_a_year: progress to the swelling limit in a year at 25 degrees Celsius and 4.1 V;
            chosen.
        swelling_sigma: sigma of that progress over packs.
        charger_faults_a_year: onsets of a charger fault; chosen.
        charger_rise_days: median days from onset to a charge that takes too long to be of use.
        sudden_deaths_a_year: failures without any precursor, which bound the recall; chosen.
        retired_a_year: share of devices retired in a year while they work.
        owner_replaced_a_year: healthy packs that owners replace on their own.
        owner_replaced_worn_a_year: more of the same once less than 30 % of the health margin is
            left: censoring that is not independent of the failure.
        replacement_share: failed devices that get a new pack and report on, if they are not
            silent; the rest run on with the failed pack until the end or retirement.
        replacement_delay_days: median days from failure to the new pack.
        silent_shares: share of failures after which the device never sends again and never comes
            back, in the order of `CAUSES`. Such a device can never train on its own failure.
        answer_share: owners who say, when asked, that the battery failed; a silent device's owner
            is never asked.
        cause_known_share: share of these answers that name the cause rightly; the rest cannot tell.
        gauge_bias_scale: factor on the gauge's bias, whose spread is 1.5-3 % by device model.
        gauge_noise: read noise of the capacity, fraction.
        gauge_step: quantisation of the capacity against design, fraction (gauges show integer
            percent); 0 switches it off.
        relearn_interval_days: mean days until the gauge learns its capacity anew and its bias
            jumps.
        resistance_noise: read noise of the resistance, fraction.
        lost_reading_share: single readings that were never stored.
        missing_value_share: single values missing in a reading.
        outage_interval_days: mean days between bursts without any reading.
        outage_mean_days: mean length of such a burst.
        clock_fault_interval_days: mean days between jumps of the clock, back or forward.
        duplicate_share: readings stored twice.
        reboot_interval_days: mean days between resets of the device's counters.
    """

    start_at: datetime = datetime(2024, 1, 1, tzinfo=UTC)
    cadence_h: int = 6
    aged_share: float = 0.5
    max_entry_age_days: float = 900.0

    climate_mix: tuple[float, ...] = (0.30, 0.22, 0.16, 0.20, 0.12)
    warming_c: float = 0.0
    device_model_mix: tuple[float, ...] = (0.22, 0.20, 0.16, 0.18, 0.14, 0.10)
    efc_median: float = 0.55
    efc_sigma: float = 0.55
    efc_shape: float = 8.0
    soc_ceiling_share: float = 0.30
    self_heating_mean_c: float = 5.0
    self_heating_sd_c: float = 2.0

    fade_scale: float = 0.65
    fade_sigma: float = 0.15
    growth_sigma: float = 0.30
    capacity_sd: float = 0.012
    bad_lot_share: float = 0.03
    bad_lot_factor: float = 2.0
    resistance_prone_share: float = 0.12
    resistance_prone_factor: float = 3.0
    knee_soh_mean: float = 0.845
    knee_soh_sd: float = 0.025
    knee_rate_median: float = 2.5
    knee_rate_sigma: float = 0.35
    gradual_share: float = 0.35
    gradual_factor: float = 0.2
    knee_resistance_gain: float = 1.5

    resistance_limit: tuple[float, float] = (2.0, 2.2)
    swelling_a_year: float = 0.35
    swelling_sigma: float = 0.6
    charger_faults_a_year: float = 0.035
    charger_rise_days: float = 60.0
    sudden_deaths_a_year: float = 0.025

    retired_a_year: float = 0.12
    owner_replaced_a_year: float = 0.02
    owner_replaced_worn_a_year: float = 0.25
    replacement_share: float = 0.75
    replacement_delay_days: float = 21.0
    silent_shares: tuple[float, ...] = (0.03, 0.10, 0.20, 0.40, 0.85)

    answer_share: float = 0.5
    cause_known_share: float = 0.7

    gauge_bias_scale: float = 1.0
    gauge_noise: float = 0.01
    gauge_step: float = 0.01
    relearn_interval_days: float = 90.0
    resistance_noise: float = 0.03
    lost_reading_share: float = 0.03
    missing_value_share: float = 0.01
    outage_interval_days: float = 150.0
    outage_mean_days: float = 3.0
    clock_fault_interval_days: float = 700.0
    duplicate_share: float = 0.003
    reboot_interval_days: float = 500.0

    past_knee_share: float = 0.0
    user_changes_a_year: float = 0.0
    user_change_sigma: float = 0.5
    habit_change_share: float = 0.5
    new_model: str = ""
    new_model_share: float = 0.0
    new_model_from_day: float = 0.0
    new_model_over_days: float = 60.0

    def __post_init__(self) -> None:
        """Refuse values that no fleet can have."""
        if self.start_at.tzinfo is None:
            raise ValueError(f"start_at must carry a time zone, got {self.start_at!r}")
        if self.cadence_h not in CADENCES_H:
            raise ValueError(f"cadence_h must be one of {CADENCES_H}, got {self.cadence_h}")
        _check_mix("climate_mix", self.climate_mix, len(CLIMATES))
        _check_mix("device_model_mix", self.device_model_mix, len(DEVICE_MODELS))
        if len(self.silent_shares) != len(CAUSES):
            raise ValueError(f"silent_shares must have {len(CAUSES)} values")
        for name in _SHARES:
            _check_range(name, getattr(self, name), 0.0, 1.0)
        for share in self.silent_shares:
            _check_range("silent_shares", share, 0.0, 1.0)
        _check_range("retired_a_year", self.retired_a_year, 0.0, 0.99)
        _check_range("warming_c", self.warming_c, -30.0, 30.0)
        low, high = self.resistance_limit
        if not 1.2 <= low <= high:
            raise ValueError(f"resistance_limit must be 1.2 <= low <= high, got {low}, {high}")
        for field in fields(self):
            value = getattr(self, field.name)
            if isinstance(value, float) and field.name != "warming_c":
                _check_range(field.name, value, 0.0, 1e6)
            if field.name.endswith(("interval_days", "mean_days", "_median", "_shape")):
                _check_range(field.name, value, 1e-3, 1e6)
        names = tuple(model.name for model in DEVICE_MODELS)
        if self.new_model_share > 0 and self.new_model not in names:
            raise ValueError(f"new_model must be one of {', '.join(names)}, got {self.new_model!r}")

    def __repr__(self) -> str:
        """Return the knobs as Python would write them, those added later only where they differ."""
        shown = [
            f"{field.name}={getattr(self, field.name)!r}"
            for field in fields(self)
            if field.name not in _LATER_KNOBS or getattr(self, field.name) != field.default
        ]
        return f"FleetRecipe({', '.join(shown)})"

    def to_json(self) -> dict[str, Any]:
        """Return the knobs as JSON values."""
        return asdict(self) | {"start_at": self.start_at.isoformat()}

    @staticmethod
    def of(settings: Mapping[str, Any]) -> FleetRecipe:
        """Make a recipe from knobs by name, as `to_json`, TOML or a command line give them.

        Args:
            settings: values of JSON or TOML, or their text; knobs that are not named keep their
                defaults. `climate_mix` and `device_model_mix` may be mappings from name to share.

        Raises:
            ValueError: when a knob is not known or a value cannot be read or used.
        """
        defaults = FleetRecipe()
        known = {field.name: getattr(defaults, field.name) for field in fields(FleetRecipe)}
        for name in settings:
            if name not in known:
                near = difflib.get_close_matches(name, known, n=1)
                hint = f"; did you mean {near[0]}?" if near else ""
                raise ValueError(f"a fleet recipe has no knob {name!r}{hint}")
        values = {name: _read(name, value, known[name]) for name, value in settings.items()}
        return FleetRecipe(**values)


def _read(name: str, value: Any, default: Any) -> Any:
    """Read one knob as the type of its default."""
    if isinstance(default, int) and isinstance(value, float):
        raise ValueError(f"{name} must be a whole number, got {value}")  # noqa: TRY004 - a value
    try:
        if isinstance(value, type(default)) and not isinstance(default, tuple):
            return value
        if isinstance(default, datetime):
            return datetime.fromisoformat(str(value))
        if isinstance(default, tuple):
            return _read_shares(name, value)
        return type(default)(value)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{name} cannot be {value!r}: {error}") from error


def _read_shares(name: str, value: Any) -> tuple[float, ...]:
    if isinstance(value, str):
        parts = [part.strip() for part in value.split(",") if part.strip()]
        if not any("=" in part for part in parts):
            return tuple(float(part) for part in parts)
        pairs = [part.partition("=") for part in parts]
        value = {key.strip(): share for key, _, share in pairs}
    if not isinstance(value, Mapping):
        return tuple(float(share) for share in value)
    names = _NAMES_OF_MIX.get(name)
    if names is None:
        raise ValueError("give the values alone, separated by commas")
    for key in value:
        if key not in names:
            raise ValueError(f"{key!r} is not one of {', '.join(names)}")
    return tuple(float(value.get(key, 0.0)) for key in names)


def _check_range(name: str, value: float, low: float, high: float) -> None:
    if not low <= value <= high:
        raise ValueError(f"{name} must be between {low:g} and {high:g}, got {value}")


def _check_mix(name: str, mix: tuple[float, ...], length: int) -> None:
    least = _LEAST_SHARES.get(name, length)
    if not least <= len(mix) <= length:
        wanted = length if least == length else f"{least} to {length}"
        raise ValueError(f"{name} must have {wanted} shares, got {len(mix)}")
    if min(mix) < 0 or sum(mix) <= 0:
        raise ValueError(f"{name} must hold shares of at least 0, not all 0, got {mix}")
