import json
import subprocess
import sys

import pytest

import edge_client
from edge_client.client import EdgeClient

LIGHT_TO_IMPORT = (
    "asyncio",
    "cryptography",
    "email",
    "importlib.metadata",
    "logging",
    "numpy",
    "onnxruntime",
    "paho",
    "sqlite3",
    "tomllib",
)


def modules_after(program):
    """Modules that a program loads beyond those that Python, and coverage, load by themselves."""
    return _all_modules_after(program) - _all_modules_after("pass")


def _all_modules_after(program):
    answer = subprocess.run(
        [
            sys.executable,
            "-c",
            f"import json, sys\n{program}\nprint(json.dumps(list(sys.modules)))",
        ],
        check=True,
        capture_output=True,
        text=True,
    )
    return set(json.loads(answer.stdout.splitlines()[-1]))


def test_public_names_are_these():
    assert edge_client.__all__ == [
        "EdgeClient",
        "EdgeError",
        "GivenConsent",
        "InstalledBundle",
        "ModelStore",
        "Purpose",
        "QuietHours",
        "ReadingRefusedError",
        "Recording",
        "ShownNotice",
        "StoreBusyError",
        "StoreError",
        "StoreMissingError",
        "TelemetryStore",
        "readings_of",
    ]
    assert dir(edge_client) == sorted(edge_client.__all__)


@pytest.mark.parametrize("name", edge_client.__all__)
def test_public_name_is_what_it_is_called(name):
    assert getattr(edge_client, name).__name__ == name


def test_other_names_are_no_attributes():
    assert edge_client.EdgeClient is EdgeClient
    with pytest.raises(AttributeError, match="no attribute 'Nothing'"):
        _ = edge_client.Nothing


@pytest.mark.parametrize("program", ["import edge_client", "import edge_client.cli"])
def test_import_loads_next_to_nothing(program):
    assert modules_after(program) & set(LIGHT_TO_IMPORT) == set()


@pytest.mark.slow
def test_version_is_told_without_numpy():
    program = (
        "from edge_client.cli import main\ntry:\n    main(['--version'])\nexcept SystemExit: pass"
    )
    assert modules_after(program) & {"numpy", "onnxruntime", "paho", "sqlite3"} == set()


@pytest.mark.slow
def test_client_loads_neither_link_nor_signatures():
    loaded = modules_after("from edge_client import EdgeClient")
    unwanted = {"asyncio", "cryptography", "email", "importlib.metadata", "paho", "onnxruntime"}
    assert loaded & unwanted == set()
