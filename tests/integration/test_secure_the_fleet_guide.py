"""The commands of the guide to a secured fleet, run in order as they stand, on a real Mosquitto.

What the shell does itself and what runs in the background are processes; every other command runs
in this one, or a test of seventeen commands would import the same libraries seventeen times.
"""

import os
import re
import shlex
import signal
import socket
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import pytest

from edge_client import cli as device_cli
from server.broker import free_port
from tests.support.brokers import wait_until
from tests.support.command_line import fedcell
from tests.support.system_parts import REPOSITORY

PAGE = REPOSITORY / "docs" / "how-to" / "secure-the-fleet.md"
BLOCK = re.compile(r"^```bash\n(?P<body>.*?)^```$", re.MULTILINE | re.DOTALL)
COMMAND = re.compile(r"^(?P<program>fedcell|fedcell-device) (?P<rest>[^>]+?)(?: > (?P<out>\S+))?$")
PORT = re.compile(r"--port (\d+)")


class Shell:
    """Runs the lines of a guide in one folder, with one environment."""

    def __init__(self, capsys, monkeypatch):
        self.said = ""
        self._monkeypatch = monkeypatch
        self._capsys = capsys
        self._running = []
        self._port = 0

    def run(self, line):
        self._port = int(found[1]) if (found := PORT.search(line)) else self._port
        command = COMMAND.match(line)
        if line.endswith(" &"):
            self._begin(line)
        elif command is None:
            self._let_bash(line)
        else:
            words = shlex.split(os.path.expandvars(command["rest"]))
            out = self._answer(command["program"], words)
            if command["out"]:
                Path(command["out"]).write_text(out)
            self.said += out

    def end(self):
        for process in self._running:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGTERM)
        for process in self._running:
            process.wait(10)

    def _answer(self, program, words):
        if program == "fedcell":
            ran = fedcell(*words)
            assert ran.code == 0, f"{words}: {ran.err}"
            return ran.out
        code = device_cli.main(words)
        said = self._capsys.readouterr()
        assert code == 0, f"{words}: {said.err}"
        return said.out

    def _begin(self, line):
        process = subprocess.Popen(["bash", "-c", f"exec {line[:-2]}"], start_new_session=True)
        self._running.append(process)
        if "--port" in line or line.startswith("mosquitto"):
            assert wait_until(self._is_open, 20)

    def _is_open(self):
        with suppress(OSError):
            socket.create_connection(("127.0.0.1", self._port), 1).close()
            return True
        return False

    def _let_bash(self, line):
        """Let the shell do what it does itself, and take its variables over."""
        script = f"set -aeuo pipefail\n{line}\nenv -0 > variables"
        subprocess.run(["bash", "-c", script], check=True)
        for entry in Path("variables").read_text().split("\0"):
            name, equals, value = entry.partition("=")
            if equals and os.environ.get(name) != value:
                self._monkeypatch.setenv(name, value)


def lines_of(text):
    """Return a guide's commands: lines that go on are joined, and a text that is written is one."""
    joined = text.replace("\\\n", " ")
    return re.findall(r"^cat > .*?^END$|^\S[^\n]*$", joined, re.MULTILINE | re.DOTALL)


@pytest.mark.broker
@pytest.mark.slow
def test_every_command_of_the_guide_works_in_order(tmp_path, monkeypatch, capsys):
    text = "".join(match["body"] for match in BLOCK.finditer(PAGE.read_text()))
    for usual in ("8883", "8443"):
        text = text.replace(usual, str(free_port()))
    programs = f"{Path(sys.executable).parent}:{os.environ['PATH']}:/usr/sbin"
    monkeypatch.setenv("PATH", programs)
    monkeypatch.chdir(tmp_path)
    shell = Shell(capsys, monkeypatch)
    try:
        for line in lines_of(text):
            shell.run(line)
    finally:
        shell.end()

    assert "0 unsafe" in shell.said
    assert "and the broker (process" in shell.said
    assert "device-ca-1: retired" in shell.said
    assert "fct_" not in Path("enrolment.log").read_text()
