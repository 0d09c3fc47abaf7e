"""A device's first minutes: keys of its own, bound to its hardware, and its store."""
