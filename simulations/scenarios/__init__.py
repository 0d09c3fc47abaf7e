"""Named fleets to test on: recipe, seed, faults and measured prevalence of each, as TOML files."""

from .catalogue import (
    SCENARIO_NAMES,
    FleetPrevalence,
    Scenario,
    ScenarioError,
    StatedPrevalence,
    load_scenario,
    measured_prevalence,
)

__all__ = [
    "SCENARIO_NAMES",
    "FleetPrevalence",
    "Scenario",
    "ScenarioError",
    "StatedPrevalence",
    "load_scenario",
    "measured_prevalence",
]
