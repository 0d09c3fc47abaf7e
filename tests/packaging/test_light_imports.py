"""An inference-only device loads nothing heavy: looked at in a fresh interpreter."""

import json
import subprocess
import sys

import pytest

HEAVY = (
    "alembic",
    "dp_accounting",
    "fastapi",
    "flwr",
    "jsonschema",
    "matplotlib",
    "onnx",
    "opacus",
    "pandas",
    "pyarrow",
    "ray",
    "rich",
    "scipy",
    "server",
    "simulations",
    "sklearn",
    "sqlalchemy",
    "torch",
    "typer",
)


def loaded_after_importing(module):
    program = f"import json, sys, {module}; print(json.dumps(sorted(sys.modules)))"
    answer = subprocess.run(
        [sys.executable, "-c", program], check=True, capture_output=True, text=True
    )
    return set(json.loads(answer.stdout))


@pytest.mark.parametrize(
    "module",
    [
        "edge_client",
        "edge_client.cli",
        "edge_client.client",
        "models",
        "models.featurize",
        "models.inference",
        "models.bundle",
        "privacy",
    ],
)
def test_device_module_loads_nothing_heavy(module):
    assert loaded_after_importing(module) & set(HEAVY) == set()


def test_reading_a_command_line_loads_no_archives():
    program = (
        "import json, sys; from edge_client.cli import make_parser;"
        "make_parser(['predict']).parse_args(['predict', '--explain']);"
        "print(json.dumps(sorted(sys.modules)))"
    )
    answer = subprocess.run(
        [sys.executable, "-S", "-c", program], check=True, capture_output=True, text=True
    )

    assert {"shutil", "lzma", "zlib"} & set(json.loads(answer.stdout)) == set()


def test_leaves_load_each_other_neither():
    assert "privacy" not in loaded_after_importing("models")
    assert "models" not in loaded_after_importing("privacy")


def test_root_command_loads_no_numerics():
    heavy_for_help = {"torch", "flwr", "pyarrow", "sqlalchemy", "fastapi", "sklearn", "ray"}
    program = (
        "import json, sys; from server.commands.root import invoke;"
        "code = invoke(['--help']);"
        "print(json.dumps([code, sorted(sys.modules)]))"
    )
    answer = subprocess.run(
        [sys.executable, "-c", program], check=True, capture_output=True, text=True
    )
    code, modules = json.loads(answer.stdout.splitlines()[-1])

    assert code == 0
    assert set(modules) & heavy_for_help == set()


def test_paho_loads_without_tls_and_proxies_and_hides_neither_from_others():
    program = (
        "import json, sys; from edge_client.link.light_paho import load_paho; load_paho();"
        "loaded = sorted(sys.modules);"
        "import ssl, urllib.request, models.wire.link;"
        "answer = [loaded, hasattr(ssl, 'SSLContext'), hasattr(urllib.request, 'urlopen')];"
        "print(json.dumps(answer))"
    )
    answer = subprocess.run(
        [sys.executable, "-c", program], check=True, capture_output=True, text=True
    )
    loaded, *others_are_real = json.loads(answer.stdout)

    assert "paho.mqtt.client" in loaded
    assert {"ssl", "_ssl", "http.client", "urllib.request"} & set(loaded) == set()
    assert others_are_real == [True, True]
