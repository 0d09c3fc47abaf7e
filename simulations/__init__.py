"""Simulated fleets, rounds and the demo, vectorised over devices."""
