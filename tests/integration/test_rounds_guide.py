"""The guide's way from nothing to a round, over three machines: each a network namespace."""

import json
import re
import shutil
import sys
from pathlib import Path

import pytest

from tests.support.network_namespaces import machines, why_not
from tests.support.node_deployments import QUICK, wait_for
from tests.support.system_parts import NGINX, REPOSITORY

GUIDE = REPOSITORY / "docs" / "how-to" / "run-rounds.md"
SERVER, FIRST, SECOND = "server", "meter-1", "meter-2"
BLOCK = re.compile(r"^```bash (server|device)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
OPEN = """
import socket, sys
with socket.socket() as probe:
    probe.settimeout(5)
    print(probe.connect_ex((sys.argv[1], int(sys.argv[2]))))
"""
ASKED = """
import http.client, ssl, sys
context = ssl.create_default_context(cafile=sys.argv[1])
connection = http.client.HTTPSConnection("server.example", 9092, timeout=10, context=context)
connection.request("POST", sys.argv[2], b"", {"Content-Type": "application/x-protobuf"})
print(connection.getresponse().status)
"""


def blocks():
    return BLOCK.findall(GUIDE.read_text(encoding="utf-8"))


def asked_of(machine, program, *words):
    path = machine.folder / "asked.py"
    path.write_text(program)
    return machine.run(f"{sys.executable} asked.py {' '.join(map(str, words))}").strip()


def test_the_guide_has_blocks_for_the_server_and_for_a_device():
    where = [where for where, _ in blocks()]

    assert where.count("device") == 1
    assert where[0] == where[-1] == "server"


@pytest.mark.soak
def test_the_commands_of_the_guide_lead_to_a_round_over_three_machines(tmp_path):
    reason = why_not()
    if reason is None and NGINX.find() is None:
        reason = NGINX.is_missing_line()
    if reason is not None:
        pytest.skip(reason)
    names = {SERVER: "server.example", FIRST: "meter-1.example", SECOND: "meter-2.example"}
    programs = f"{Path(sys.executable).parent}:/usr/sbin:/usr/bin:/bin"

    with machines(tmp_path, names, environment={"PATH": programs, **QUICK}) as running:
        for where, block in blocks():
            if where == SERVER:
                running[SERVER].run(block)
                continue
            for name in (FIRST, SECOND):
                shutil.copy(tmp_path / SERVER / f"{name}.json", tmp_path / name)
                _wait_for_port(running[name], 8443)
                running[name].run(block.replace(FIRST, name))
        report = json.loads((tmp_path / SERVER / "rounds/runs/0001/run.json").read_text())
        authorities = tmp_path / FIRST / "meter.db.fleet" / "authorities-1.pem"
        said = [
            asked_of(running[FIRST], ASKED, authorities, path)
            for path in ("/v1/control/list-nodes", "/v1/control/start-run", "/v1/runtime/x")
        ]
        inner = asked_of(running[FIRST], OPEN, "server.example", 9093)

    assert report["status"] == "finished"
    assert [record["replied"] for record in report["rounds"]] == [2]
    assert said == ["403", "403", "403"], "devices must not reach what operators use"
    assert inner != "0", "nor the SuperLink itself"
    for name in (FIRST, SECOND):
        log = (tmp_path / name / "node.log").read_text()
        assert "connected to server.example:9092" in log
        assert "runs the pinned bundle" in log


def _wait_for_port(machine, port):
    wait_for(
        lambda: asked_of(machine, OPEN, "server.example", port) == "0",
        what=f"port {port} of the server",
        seconds=60,
    )
