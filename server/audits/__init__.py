"""Attacks on the aggregation that runs, and what they got out of it."""
