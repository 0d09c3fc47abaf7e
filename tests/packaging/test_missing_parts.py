"""A missing part of the machine skips its tests with its name, and fails them on CI."""

import os
import subprocess
import sys

import pytest

from tests.support.memory_folder import memory_folder
from tests.support.system_parts import REPOSITORY

CONFTEST = """
import tests.support.system_parts as parts
parts.SystemPart.find = lambda part: None
from tests.conftest import pytest_runtest_setup
"""
TESTS = """
import pytest

@pytest.mark.broker
def test_of_broker():
    pass

@pytest.mark.browser
def test_of_browser():
    pass

@pytest.mark.cells
def test_of_cells():
    pass

def test_of_nothing():
    pass
"""
SETTINGS = "[pytest]\nmarkers = broker\n    browser\n    cells\n"


@pytest.fixture
def run_without_parts(tmp_path):
    def run(ci):
        (tmp_path / "conftest.py").write_text(CONFTEST)
        (tmp_path / "test_parts.py").write_text(TESTS)
        (tmp_path / "pytest.ini").write_text(SETTINGS)
        environment = os.environ | {
            "CI": ci,
            "FEDCELL_CELLS": str(tmp_path),
            "PYTHONPATH": str(REPOSITORY),
            "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1",
        }
        return subprocess.run(
            [sys.executable, "-m", "pytest", "-rs", "-p", "no:cacheprovider"],
            cwd=tmp_path,
            env=environment,
            check=False,
            capture_output=True,
            text=True,
        ).stdout

    return run


def test_at_home_each_is_skipped_with_its_install_line(run_without_parts):
    out = run_without_parts("")

    assert "1 passed, 3 skipped" in out
    assert "Mosquitto is not installed: apt-get install --no-install-recommends mosquitto" in out
    assert "Chromium is not installed: apt-get install --no-install-recommends chromium" in out
    assert "set FEDCELL_CELLS" in out


def test_on_ci_parts_are_demanded_and_cells_are_not(run_without_parts):
    out = run_without_parts("true")

    assert "1 passed, 1 skipped, 2 errors" in out


def test_files_of_tests_lie_in_memory_only_where_it_has_room_for_them(tmp_path, monkeypatch):
    monkeypatch.setattr("tests.support.memory_folder.LEAST_FREE_BYTES", 0)
    assert memory_folder(tmp_path) == tmp_path
    monkeypatch.setattr("tests.support.memory_folder.LEAST_FREE_BYTES", 1 << 62)
    assert memory_folder(tmp_path) is None
    assert memory_folder(tmp_path / "none") is None
    assert os.environ.get("PYTEST_DEBUG_TEMPROOT") or memory_folder() is None
