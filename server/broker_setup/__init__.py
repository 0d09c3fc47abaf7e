"""The configuration of a fleet's broker, and what is unsafe in one that runs."""
