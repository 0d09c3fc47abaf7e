"""What benchmarks share: a device with a life behind it, its code compiled as pip leaves it."""

import pytest

from tests.support.edge_devices import NOW, fading_life, new_store


@pytest.fixture
def device_store(tmp_path, monkeypatch):
    """Flags for `fedcell-device`: a store with 120 days of readings, and the moment after them.

    Processes started from here on find compiled modules after the first of each kind, whatever the
    machine says about writing them: pip compiles what it installs, a checkout does not.
    """
    monkeypatch.delenv("PYTHONDONTWRITEBYTECODE", raising=False)
    monkeypatch.setenv("PYTHONPYCACHEPREFIX", str(tmp_path / "compiled"))
    with new_store(tmp_path) as store:
        store.record_many(fading_life(), now=NOW)
    return ("--store", str(store.path), "--now", NOW.isoformat())
