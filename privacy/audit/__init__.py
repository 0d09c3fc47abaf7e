"""Attacks on the mechanism and lower bounds on what it reveals; pure, on what is handed in."""
