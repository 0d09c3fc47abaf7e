"""Processes of the demo: what they print is read, what they say is shown, none is left behind."""

import sys
import time

import pytest

from simulations.demo.processes import Children, ProcessError, ProgramMissingError, program
from tests.support.processes import processes_naming

PATIENCE_S = 20.0


def started(children, name, code):
    return children.start(name, [sys.executable, "-c", code, str(children.scratch)])


def test_events_come_line_by_line_and_a_half_line_waits(tmp_path):
    code = """
import time
print('{"event": "ready"}')
print('{"ev', end="", flush=True)
time.sleep(60)
"""
    with Children(tmp_path) as children:
        child = started(children, "server", code)
        children.wait_for("a sign", lambda: bool(child.events()), timeout_s=PATIENCE_S, of=child)

        assert child.events() == [{"event": "ready"}]


def test_print_that_is_no_json_is_an_error_of_the_process(tmp_path):
    with Children(tmp_path) as children:
        child = started(children, "agent", "print('hello')")
        child.process.wait(PATIENCE_S)

        with pytest.raises(ProcessError, match="agent: printed what is no JSON"):
            child.events()


@pytest.mark.parametrize(("code", "documented"), [(4, 4), (6, 6), (1, 6), (99, 6)])
def test_failure_shows_what_was_said_and_keeps_a_documented_code(tmp_path, code, documented):
    script = f"import sys; print('no key: make one', file=sys.stderr); sys.exit({code})"
    with Children(tmp_path) as children:
        child = started(children, "server", script)

        with pytest.raises(ProcessError, match="no key: make one") as failure:
            children.wait_for("a sign", lambda: False, timeout_s=PATIENCE_S, of=child)

    assert failure.value.exit_code == documented
    assert failure.value.name == "server"


def test_process_that_ends_too_soon_is_not_waited_for(tmp_path):
    with Children(tmp_path) as children:
        child = started(children, "server", "pass")

        with pytest.raises(ProcessError, match="ended before the first sign"):
            children.wait_for("the first sign", lambda: False, timeout_s=PATIENCE_S, of=child)


def test_slow_process_is_waited_for_no_longer_than_was_said(tmp_path):
    with Children(tmp_path) as children:
        child = started(children, "server", "import time; time.sleep(60)")

        with pytest.raises(ProcessError, match=r"the first sign did not come within 0\.2 s"):
            children.wait_for("the first sign", lambda: False, timeout_s=0.2, of=child)


@pytest.mark.parametrize("error", [KeyboardInterrupt, ValueError])
def test_every_process_ends_with_the_context(tmp_path, error):
    stubborn = "import signal, time; signal.signal(signal.SIGINT, signal.SIG_IGN); time.sleep(60)"

    def run():
        with Children(tmp_path) as children:
            for name in ("server", "agent"):
                started(children, name, stubborn)
            deadline = time.monotonic() + PATIENCE_S
            while len(processes_naming(str(tmp_path))) < 2 and time.monotonic() < deadline:
                time.sleep(0.01)
            assert len(processes_naming(str(tmp_path))) == 2
            raise error

    with pytest.raises(error):
        run()
    assert processes_naming(str(tmp_path)) == []


def test_command_that_is_not_installed_is_a_missing_part():
    with pytest.raises(ProgramMissingError) as missing:
        program("fedcell-of-tomorrow")

    assert missing.value.exit_code == 4
    assert program("fedcell-device").endswith("fedcell-device")
