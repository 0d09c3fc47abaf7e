"""A regular package, so that no `tests` of another distribution stands in its way."""
