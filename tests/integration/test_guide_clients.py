"""The guide's client in C, compiled without a warning and run against the service; its table."""

import json
import re
import shutil
import subprocess
import sys
import time

import pytest

from edge_client.sensing.gauge_history import LONGEST_GAP_S, MOST_PERCENT_AT_START
from edge_client.sensing.gauge_mapping import GaugeStatus, rules_table
from tests.support.edge_devices import NOW, fading_life, new_store
from tests.support.system_parts import REPOSITORY

GUIDE = (REPOSITORY / "docs" / "how-to" / "integrate-firmware.md").read_text()
COMPILER = shutil.which("cc")
STRICT = ("-std=c11", "-Wall", "-Wextra", "-Wpedantic", "-Werror", "-O1")


@pytest.fixture
def ask(tmp_path):
    """The guide's client, compiled."""
    if COMPILER is None:
        pytest.skip("no C compiler is installed: apt-get install gcc libc6-dev")
    (source,) = re.findall(r"^```c\n(.*?)^```$", GUIDE, re.MULTILINE | re.DOTALL)
    (tmp_path / "ask.c").write_text(source)
    subprocess.run([COMPILER, *STRICT, "-o", "ask", "ask.c"], cwd=tmp_path, check=True)
    return tmp_path / "ask"


@pytest.fixture
def place(tmp_path_factory):
    """A socket with the service behind it, and a device with a life behind that."""
    folder = tmp_path_factory.mktemp("s")
    with new_store(folder) as store:
        store.record_many(fading_life(), now=NOW)
    place = folder / "device.sock"
    program = [sys.executable, "-m", "edge_client.cli", "--store", str(folder / "device.db")]
    service = subprocess.Popen(
        [*program, "serve", "--socket", str(place), "--now", NOW.isoformat()]
    )
    try:
        until = time.monotonic() + 30
        while not place.exists():
            assert service.poll() is None
            assert time.monotonic() < until
            time.sleep(0.01)
        yield place
    finally:
        service.terminate()
        assert service.wait(30) == 0


def test_client_in_c_prints_answers_and_ends_with_what_they_say(ask, place):
    def asked(*words):
        return subprocess.run([ask, *words], capture_output=True, check=False, timeout=60)

    good = asked(place, '{"id": 1, "do": "explain", "language": "de"}')
    large = asked(place, '{"do": "export"}')
    bad = asked(place, '{"do": "reboot"}')

    assert good.returncode == 0
    assert json.loads(good.stdout)["result"]["status"] == "ok"
    assert len(json.loads(large.stdout)["result"]["readings"]) == 480
    assert (bad.returncode, json.loads(bad.stdout)["error"]["code"]) == (1, "unknown_request")
    assert asked(place).returncode == 2
    assert asked(f"{place}.not", "{}").returncode == 6


@pytest.mark.parametrize("library", ["cryptography", "onnxruntime"])
def test_readings_predictions_and_requests_need_neither_of_the_large_libraries(tmp_path, library):
    with new_store(tmp_path) as store:
        store.record_many(fading_life(), now=NOW)
    blocked = (
        f"import sys; sys.modules[{library!r}] = None; from edge_client.cli import main; main()"
    )
    at_now = ["--store", str(tmp_path / "device.db"), "--now", NOW.isoformat()]

    def ran(*words):
        return subprocess.run(
            [sys.executable, "-c", blocked, *words, *at_now],
            input='{"do": "record", "reading": {"usage_hours": 1}}\n{"do": "predict"}\n',
            capture_output=True,
            text=True,
            check=True,
            timeout=60,
        ).stdout

    recorded, predicted = (json.loads(line) for line in ran("serve").splitlines())

    assert recorded["result"]["stored"] == 1
    assert predicted["result"]["status"] == "ok"
    assert json.loads(ran("predict", "--json"))["status"] == "ok"


def test_table_of_rules_in_the_guide_is_the_one_in_the_code():
    marked = re.search(r"<!-- rules: [\w.]+ -->\n(.*?)<!-- end -->", GUIDE, re.DOTALL)

    assert marked[1] == rules_table()


def test_guide_names_every_status_of_a_gauge_and_the_limits_of_its_looks():
    assert {f"`{status.value}`" for status in GaugeStatus} <= set(re.findall(r"`\w+`", GUIDE))
    assert f"at {MOST_PERCENT_AT_START} % or less" in GUIDE
    assert LONGEST_GAP_S == 1800
    assert "not looked at for half an hour" in GUIDE
