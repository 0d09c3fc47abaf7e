"""The device's store: one SQLite file of rows, in the clear or sealed, and what keeps it whole."""
