"""`selftest`, `sensors`, `diagnostics`, `systemd`: run as people in the field run them."""

import io
import json
import re
import shutil
import struct
import subprocess
import sys
import zipfile
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from edge_client import EdgeClient
from edge_client.cli import main, make_parser
from edge_client.conformance import FILES, FOLDER, MANIFEST
from edge_client.conformance.wire import check_sealing
from edge_client.selftest import SelfTest, SetResult
from edge_client.store.mailbox import Purpose
from edge_client.systemd import NAMES
from edge_client.telemetry_store import TelemetryStore
from models.telemetry import MEASUREMENT_NAMES, DeviceId, DeviceProfile, Reading
from tests.support.edge_devices import NOW

TREES = Path(__file__).parents[1] / "golden" / "power_supply"
needs_systemd = pytest.mark.skipif(
    shutil.which("systemd-analyze") is None, reason="systemd-analyze is not installed"
)


@pytest.fixture
def run(capsys):
    def call(*arguments):
        code = main([str(argument) for argument in arguments])
        said = capsys.readouterr()
        return code, said.out, said.err

    return call


# The conformance kit


def copied_kit(folder):
    shutil.copytree(FOLDER, folder / "kit", ignore=shutil.ignore_patterns("__pycache__", "*.py"))
    return folder / "kit"


def hex_of(message):
    return message["payload"].encode().hex()


def changed(kit, name, change):
    """Change a file of the kit, and its hash in the manifest."""
    import hashlib

    content = json.loads((kit / name).read_bytes())
    change(content)
    (kit / name).write_text(json.dumps(content))
    manifest = json.loads((kit / MANIFEST).read_bytes())
    manifest["files"][name] = hashlib.sha256((kit / name).read_bytes()).hexdigest()
    (kit / MANIFEST).write_text(json.dumps(manifest))


def test_this_device_passes_every_set_on_both_backends(run):
    code, out, _ = run("selftest", "--json")
    found = json.loads(out)

    assert (code, found["passed"]) == (0, True)
    assert found["backends"] == ["onnxruntime", "numpy"]
    assert {result["name"]: result["checked"] > 5 for result in found["sets"]} == {
        "readings": True,
        "outputs (onnxruntime)": True,
        "outputs (numpy)": True,
        "messages": True,
        "signatures": True,
        "sealing": True,
        "rounds over MQTT": True,
    }
    assert all(ms > 0 for ms in found["timings_ms"].values())


def test_what_differs_fails_its_set_and_is_named(run, tmp_path):
    kit = copied_kit(tmp_path)

    def readings(v):
        v["cases"][0]["expected"]["moments"][0]["features"][2] = 0.5
        v["cases"][1]["expected"]["moments"][0]["report"]["urgency"] = "critical"

    def refused(v):
        v["refused"].append(
            {"type": "status", "reason": "x", "payload_hex": hex_of(v["messages"][5])}
        )

    changed(kit, "readings.json", readings)
    changed(kit, "outputs.json", lambda v: v["outputs"]["days_to_failure"][3].__setitem__(1, 7.0))
    changed(kit, "messages.json", refused)
    changed(kit, "signatures.json", lambda v: v["signed_bytes"][0].update(signature="00" * 64))
    changed(kit, "sealing.json", lambda v: v["sealed"][0].update(payload="other"))
    code, out, _ = run("selftest", "--vectors", kit)

    assert code == 1
    assert out.count("FAIL (") == 6
    assert "\nFAILED: vectors 1" in out
    for says in (
        "every channel, fading: moments[0]: features[2] is 0.7",
        "urgency is 'low', not 'critical'",
        "row 3: days_to_failure[1] is",
        "taken, but must be refused as x",
        "signature of a bundle: the prefix and the digest of its manifest: bad_signature",
        "payload on fedcell/v1/",
    ):
        assert says in out


def test_kit_that_was_altered_or_is_not_there_is_refused(run, tmp_path):
    kit = copied_kit(tmp_path)
    (kit / "outputs.json").write_text("{}")
    code, _, said = run("selftest", "--vectors", kit)
    assert code == 3
    assert f"{kit / 'outputs.json'}: is not the file that was released; pip install" in said
    (kit / "outputs.json").unlink()
    assert run("selftest", "--vectors", kit)[0] == 4


def test_device_without_any_backend_does_not_pass():
    skipped = SetResult("outputs", skipped="is not installed here")
    found = SelfTest(vectors={}, sets=(skipped,), backends=(), timings_ms={})

    assert not found.passed
    assert SelfTest(vectors={}, sets=(skipped,), backends=("numpy",), timings_ms={}).passed


def test_kit_in_the_package_is_what_its_script_makes_today(tmp_path):
    from simulations.conformance_vectors import MOST_BYTES, write_conformance_vectors

    kit = copied_kit(tmp_path)
    written = write_conformance_vectors(kit)

    assert written.kept == 2
    assert sum(written.files.values()) <= MOST_BYTES
    for name in (*FILES, MANIFEST):
        assert (kit / name).read_bytes() == (FOLDER / name).read_bytes(), name


def test_script_seals_anew_what_opens_to_something_else(tmp_path):
    from simulations.conformance_vectors import write_conformance_vectors

    kit = copied_kit(tmp_path)
    changed(kit, "sealing.json", lambda v: v["sealed"][0].update(message_hex="01"))

    assert write_conformance_vectors(kit).kept == 1
    sealing = json.loads((kit / "sealing.json").read_bytes())
    assert [failure for failure in check_sealing(sealing) if failure is not None] == []


# Sensors


def test_batteries_are_shown_with_what_each_gives(run):
    code, out, _ = run("sensors", "--root", TREES / "charge_laptop", "--json")
    (found,) = json.loads(out)["batteries"]

    assert code == 0
    assert found["status"] == "ok"
    assert found["measurements"] == {
        "charge_cycle_count": 312.0,
        "full_charge_capacity_mah": 3651.0,
    }


@pytest.mark.parametrize(
    ("tree", "says"),
    [
        ("no_capacity", "axp20x-battery: no_full_charge_capacity (no rule gives one"),
        ("odd_values", "implausible_full_charge_capacity"),
        ("nowhere", "no battery of this machine in"),
    ],
)
def test_gauge_that_is_of_no_use_says_why(run, tree, says):
    code, out, _ = run("sensors", "--root", TREES / tree, "--design-capacity-mah", 3000)

    assert code == 1
    assert says in out


# Diagnostics

PLANTED = {
    "full_charge_capacity_mah": 2718.28125,
    "charge_cycle_count": 314159.0 / 7,
    "charge_duration_min": 161.80339,
    "battery_temp_max_c": 57.721566,
    "battery_temp_avg_c": 41.421356,
    "unexpected_shutdown_count": 8675.0,
    "usage_hours": 22.36068,
    "internal_resistance_mohm": 6180.34,
}
DEVICE = "planted-7f3a9c"
KEY = bytes(range(200, 232))
OWNER_TEXT = "Zwetschgenknödel"


@pytest.fixture
def planted(tmp_path):
    """A sealed store of unusual values, with everything that must not be told."""
    folder = tmp_path / DEVICE
    folder.mkdir()
    key_file = folder / "store.key"
    key_file.write_bytes(KEY)
    profile = DeviceProfile(
        device_id=DeviceId(DEVICE),
        device_model="Planted Model 9",
        chemistry="PlantedChem",
        design_capacity_mah=3141.59,
        end_of_life_capacity_mah=1414.21,
        manufactured_at=datetime(2024, 1, 1, tzinfo=UTC),
        region="PlantedRegion",
    )
    path = folder / "device.db"
    with TelemetryStore.create(path, profile=profile, key=lambda: KEY) as store:
        times = [NOW - timedelta(hours=6 * back) for back in reversed(range(200))]
        store.record_many([Reading(at=at, **PLANTED) for at in times], now=NOW)
        store.set_consent(Purpose.SUMMARIES, granted=True, now=NOW)
        store.put_out(Purpose.SUMMARIES, f"fedcell/{DEVICE}", OWNER_TEXT.encode())
        store.keep_notice(
            "ab" * 16, sequence=1, version=2, body=json.dumps({"x": OWNER_TEXT}), now=NOW
        )
    return path, key_file


def texts_of(number):
    """Ways in which a number may stand in a text or a binary file."""
    shown = {f"{number:.{digits}f}" for digits in (1, 2, 3, 6)} | {repr(number), f"{number:g}"}
    shown |= {text.replace(".", ",") for text in shown}
    packed = {struct.pack(f"{order}{kind}", number) for order in "<>" for kind in "fd"}
    return {text.encode() for text in shown if len(text) >= 5} | packed


def test_archive_holds_no_reading_figure_key_or_identifier(run, planted, tmp_path):
    path, key_file = planted
    out = tmp_path / "support.zip"
    settings = ["--store", path, "--store-key", key_file, "--now", NOW.isoformat()]
    assert run("diagnostics", *settings, "--out", out)[0] == 0
    with EdgeClient(path, "default", key=lambda: KEY) as client:
        report = client.predict(NOW)
        told = client.figures
    secrets = {text for number in PLANTED.values() for text in texts_of(number)}
    for number in (report.days_to_failure_p50, report.failure_probability_30d, told.capacity_mah):
        secrets |= texts_of(number)
    words = [DEVICE, OWNER_TEXT, "Planted Model 9", "PlantedChem", "PlantedRegion", KEY.hex()]
    words += ["3141.59", "1414.21", "ab" * 16, str(tmp_path), NOW.isoformat()[:10]]
    secrets |= {word.encode() for word in words} | {KEY}

    content = out.read_bytes()
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        members = [archive.read(name) for name in archive.namelist()]
        assert archive.namelist() == ["README.txt", "diagnostics.json"]
    assert report.status == "ok"
    assert [secret for secret in secrets for part in (content, *members) if secret in part] == []


def test_archive_tells_what_support_needs(run, planted, tmp_path):
    path, key_file = planted
    out = tmp_path / "support.zip"
    settings = ["--store", path, "--store-key", key_file, "--now", NOW.isoformat()]
    run("diagnostics", *settings, "--out", out)
    with zipfile.ZipFile(out) as archive:
        found = json.loads(archive.read("diagnostics.json"))

    assert found["versions"]["fedcell"]
    assert found["store"]["readings"] == 200
    assert found["store"]["is_sealed"] is True
    assert found["store"]["last_reading_days_ago"] == 0
    assert found["store"]["consents"] == {"training": False, "summaries": True, "notices": False}
    assert found["link"]["waiting"] == {"summaries": 1}
    assert found["link"]["notices"] == {"received": 1}
    assert found["prediction"] == {"status": "ok", "is_corrected": False}
    assert found["settings"]["store_key"] == {"is_set": True}
    assert found["files"]["STORE"]["bytes"] > 10_000
    assert set(found["took_ms"]) == {
        "open_store",
        "check_store",
        "load_model",
        "first_prediction",
        "second_prediction",
    }


@pytest.mark.parametrize(
    ("damage", "error"),
    [
        (lambda path: path.unlink(), "StoreMissingError"),
        (lambda path: path.write_bytes(b"SQLite format 3\0" + bytes(4080)), "StoreForeignError"),
        (lambda path: path.write_bytes(b""), "StoreForeignError"),
    ],
)
def test_archive_of_a_device_that_is_in_trouble_says_which(run, planted, tmp_path, damage, error):
    path, key_file = planted
    damage(path)
    out = tmp_path / "support.zip"
    code, _, _ = run("diagnostics", "--store", path, "--store-key", key_file, "--out", out)
    with zipfile.ZipFile(out) as archive:
        found = json.loads(archive.read("diagnostics.json"))

    assert code == 0
    assert found["store"] == {"error": error}


def test_every_measurement_was_planted():
    assert tuple(PLANTED) == MEASUREMENT_NAMES


# systemd


@pytest.fixture
def units(run, tmp_path):
    program = tmp_path / "bin" / "fedcell-device"
    program.parent.mkdir()
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    code, _, _ = run("systemd", "--out", tmp_path / "units", "--program", program)
    assert code == 0
    return tmp_path / "units", program


def test_units_run_the_program_that_wrote_them(run, units, tmp_path):
    folder, program = units
    written = {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}
    started = [
        line
        for path in folder.glob("*.service")
        for line in path.read_text().splitlines()
        if line.startswith("ExecStart=")
    ]

    assert written == set(NAMES)
    assert len(started) == 5
    assert all(line.startswith(f"ExecStart={program} --config ") for line in started)
    assert run("systemd", "--out", tmp_path, "--program", "bin/x y")[0] == 2


def test_services_are_sandboxed_and_watched(units):
    folder, _ = units
    for path in folder.glob("*.service"):
        lines = set(path.read_text().splitlines())
        assert {
            "ProtectSystem=strict",
            "NoNewPrivileges=yes",
            "SystemCallFilter=@system-service",
            "StateDirectory=fedcell",
            "CapabilityBoundingSet=",
        } <= lines
    for name in ("fedcell-device.service", "fedcell-node.service", "fedcell-requests.service"):
        text = (folder / name).read_text()
        assert "Type=notify\n" in text
        assert "WatchdogSec=" in text
        assert "MemoryMax=" in text


@needs_systemd
@pytest.mark.parametrize("kind", ["service", "timer", "mount"])
def test_systemd_finds_no_fault_in_the_units(units, kind):
    folder, _ = units
    paths = sorted(folder.glob(f"*.{kind}"))
    ran = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", *map(str, paths)],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )

    assert paths
    assert (ran.returncode, ran.stderr) == (0, "")


@needs_systemd
def test_systemd_calls_no_service_exposed(units):
    folder, _ = units
    for path in sorted(folder.glob("*.service")):
        ran = subprocess.run(
            ["systemd-analyze", "security", "--offline=true", "--threshold=20", str(path)],
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )
        assert ran.returncode == 0, ran.stdout[-200:]


def test_program_works_where_memory_is_never_written_and_run(tmp_path):
    """MemoryDenyWriteExecute=, by the system call behind it where the kernel has one."""
    program = """
import ctypes, sys
if ctypes.CDLL(None).prctl(65, 1, 0, 0, 0):
    sys.exit(77)
from edge_client.conformance import read_vectors
from edge_client.conformance.wire import check_sealing
from edge_client.selftest import check_outputs, predictors_of
from models.bundle import load_bundle
vectors = read_vectors()
for name, predictor in predictors_of(load_bundle()):
    print(name, *filter(None, check_outputs(vectors["outputs.json"], predictor)))
print("sealing", *filter(None, check_sealing(vectors["sealing.json"])))
"""
    ran = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False, timeout=120
    )
    if ran.returncode == 77:
        pytest.skip("this kernel has no PR_SET_MDWE (Linux 6.3 on)")

    assert (ran.returncode, ran.stdout.split("\n")) == (0, ["onnxruntime", "numpy", "sealing", ""])


def commands_of(unit):
    """Words of what a unit runs, in order, without the program."""
    lines = [line for line in unit.read_text().splitlines() if line.startswith("ExecStart")]
    return [line.partition("=")[2].split()[1:] for line in lines]


def test_commands_of_the_units_do_what_they_say(run, units, tmp_path):
    folder, _ = units
    etc = tmp_path / "etc"
    etc.mkdir()
    profile = {
        "device_model": "Meter 3",
        "chemistry": "NMC111",
        "design_capacity_mah": 3000,
        "end_of_life_capacity_mah": 2400,
        "manufactured_at": "2025-01-01",
    }
    (etc / "profile.json").write_text(json.dumps(profile))
    settings = (folder / "device.toml").read_text()
    (etc / "device.toml").write_text(settings.replace("/var/lib/fedcell", str(tmp_path / "lib")))
    (etc / "machine-id").write_text("0123456789abcdef0123456789abcdef\n")

    def started(name):
        answers = []
        for words in commands_of(folder / name):
            here = [word.replace("profile.toml", "profile.json") for word in words]
            here = [word.replace("/etc/fedcell", str(etc)) for word in here]
            answers.append(run(*here, "--hardware-id-file", etc / "machine-id"))
        return answers

    first, again = started("fedcell-first-boot.service"), started("fedcell-first-boot.service")
    checked, (code, report, _) = started("fedcell-predict.service")

    assert [answer[0] for answer in (*first, *again)] == [0, 0]
    assert checked[0] == 0
    assert (code, json.loads(report)["status"]) == (0, "insufficient_history")
    assert (tmp_path / "lib" / "device.db").exists()
    for name in ("fedcell-device.service", "fedcell-requests.service"):
        check, start = commands_of(folder / name)
        assert check[-2:] == ["check", "--repair"]
        assert make_parser(start).parse_args(start).run


@needs_systemd
def test_sandbox_leaves_the_limits_that_a_new_bundle_is_tried_under(units):
    folder, _ = units
    (denied,) = re.findall(
        r"^SystemCallFilter=~(.+)$", (folder / "fedcell-device.service").read_text(), re.MULTILINE
    )

    def calls_of(*groups):
        ran = subprocess.run(
            ["systemd-analyze", "syscall-filter", *groups],
            capture_output=True,
            text=True,
            check=True,
            timeout=60,
        )
        return set(re.findall(r"^    (@?[\w-]+)", ran.stdout, re.MULTILINE))

    forbidden = calls_of(*denied.split())
    allowed = calls_of("@system-service")

    assert {"@resources", "@network-io", "@file-system", "@process"} <= allowed
    assert {"mount", "ptrace"} & forbidden
    assert not {"setrlimit", "prlimit64", "@resources"} & forbidden
