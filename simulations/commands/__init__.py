"""Command groups of simulated fleets; `fedcell` finds them through their entry points."""
