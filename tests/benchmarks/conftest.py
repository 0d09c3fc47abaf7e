"""What benchmarks share: a device with a life behind it."""

import pytest

from tests.support.edge_devices import NOW, fading_life, new_store


@pytest.fixture
def device_store(tmp_path):
    """Flags for `fedcell-device`: a store with 120 days of readings, and the moment after them."""
    with new_store(tmp_path) as store:
        store.record_many(fading_life(), now=NOW)
    return ("--store", str(store.path), "--now", NOW.isoformat())
