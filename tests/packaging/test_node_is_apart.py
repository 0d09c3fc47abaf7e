"""A device that only predicts loads nothing of the node, and the command of the node no Flower."""

import subprocess
import sys

PROGRAM = """
import sys
from edge_client.cli import main
code = main(sys.argv[1:])
print(code, *sorted(
    name for name in sys.modules
    if name.startswith("edge_client.rounds_node") or name in {"flwr", "httpx", "torch", "fastapi"}
))
"""
INIT = (
    *("init", "--device-id", "dev-1", "--device-model", "m1", "--chemistry", "NMC"),
    *("--design-capacity-mah", "3000", "--end-of-life-capacity-mah", "2400"),
    *("--manufactured-at", "2025-06-01"),
)


def loaded_by(store, *words):
    """Run a command in a fresh process; return its code, and what of the node it loaded."""
    ran = subprocess.run(
        [sys.executable, "-c", PROGRAM, "--store", str(store), *words],
        capture_output=True,
        text=True,
        check=True,
    )
    code, *names = ran.stdout.splitlines()[-1].split()
    return int(code), names


def test_a_device_that_predicts_loads_nothing_of_the_node(tmp_path):
    loaded_by(tmp_path / "d.db", *INIT)

    assert loaded_by(tmp_path / "d.db", "predict") == (0, [])


def test_the_node_itself_loads_no_flower(tmp_path):
    loaded_by(tmp_path / "d.db", *INIT)
    code, names = loaded_by(tmp_path / "d.db", "node")

    assert code == 5, "it has joined no fleet"
    assert "edge_client.rounds_node.node" in names
    assert all(name.startswith("edge_client.rounds_node") for name in names)
