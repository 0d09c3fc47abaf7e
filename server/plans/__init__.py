"""Plans of a fleet's privacy, as tables and plots."""
