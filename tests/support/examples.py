"""How many examples a property is shown where it names its own number."""

from hypothesis import settings

WHOLE = settings.get_profile("fedcell").max_examples


def examples(most: int) -> int:
    """Return all of them in `make test`; in `make check` the quick profile's share, at least 3."""
    share = settings().max_examples / WHOLE
    return min(most, max(3, round(most * share)))
