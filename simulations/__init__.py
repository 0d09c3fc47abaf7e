"""Simulated fleets, rounds and the demo, vectorised over devices."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .fleet import SimulatedFleet, simulate_fleet
    from .recipe import FleetRecipe
    from .rounds import RoundsPlan, run_rounds
    from .scenarios import Scenario, load_scenario
    from .streams import simulate_device, stream_telemetry

__all__ = [
    "FleetRecipe",
    "RoundsPlan",
    "Scenario",
    "SimulatedFleet",
    "load_scenario",
    "run_rounds",
    "simulate_device",
    "simulate_fleet",
    "stream_telemetry",
]

# Public name -> module; imported when first asked for, so that no heavy library comes along unused.
_HOMES = {
    "FleetRecipe": "recipe",
    "RoundsPlan": "rounds",
    "Scenario": "scenarios",
    "SimulatedFleet": "fleet",
    "load_scenario": "scenarios",
    "run_rounds": "rounds",
    "simulate_device": "streams",
    "simulate_fleet": "fleet",
    "stream_telemetry": "streams",
}


def __getattr__(name: str) -> Any:
    """Import a public name when it is first asked for."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f".{_HOMES[name]}", __name__), name)
