"""What every suite has: quiet libraries, one thread each, and parts of the machine by marker."""

from __future__ import annotations

import gc
import os
from pathlib import Path

# Before numpy and torch are imported: many small arrays run slower on more threads.
for _variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(_variable, "1")
os.environ["FLWR_TELEMETRY_ENABLED"] = "0"
os.environ["FLWR_DISABLE_RUNTIME_DEPENDENCY_INSTALLATION"] = "1"
os.environ["RAY_USAGE_STATS_ENABLED"] = "0"

import pytest
from hypothesis import HealthCheck, settings

from tests.support.memory_folder import memory_folder
from tests.support.system_parts import CHROMIUM, MOSQUITTO, SYSTEM_PARTS, find_cells

ON_CI = os.environ.get("CI", "").lower() in {"1", "true"}
NO_CELLS = "the real cells are not here: set FEDCELL_CELLS to the folder that holds them"

if in_memory := memory_folder():
    os.environ.setdefault("PYTEST_DEBUG_TEMPROOT", str(in_memory))

# Shared cores make deadlines lie; what CI runs is the same in every run.
settings.register_profile(
    "fedcell",
    max_examples=40,
    deadline=None,
    derandomize=ON_CI,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.register_profile("quick", parent=settings.get_profile("fedcell"), max_examples=10)
settings.load_profile("fedcell")


def pytest_collection_finish() -> None:
    """Let the garbage collector pass over what the libraries loaded; it stays anyway."""
    gc.collect()
    gc.freeze()


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skip a test whose part of the machine is missing; on CI, where it must be there, fail."""
    for part in SYSTEM_PARTS:
        if item.get_closest_marker(part.marker) and part.find() is None:
            if ON_CI:
                pytest.fail(part.is_missing_line(), pytrace=False)
            pytest.skip(part.is_missing_line())
    if item.get_closest_marker("cells") and find_cells() is None:
        pytest.skip(NO_CELLS)


@pytest.fixture(scope="session")
def mosquitto() -> Path:
    """The Mosquitto program; the test bears the marker `broker`."""
    return _present(MOSQUITTO.find(), "broker")


@pytest.fixture(scope="session")
def chromium() -> Path:
    """The Chromium program; the test bears the marker `browser`."""
    return _present(CHROMIUM.find(), "browser")


@pytest.fixture(scope="session")
def cells_directory() -> Path:
    """The folder of real ageing cells; the test bears the marker `cells`."""
    return _present(find_cells(), "cells")


def _present(path: Path | None, marker: str) -> Path:
    if path is None:
        pytest.fail(f"a test that needs this part lacks the marker '{marker}'", pytrace=False)
    return path
