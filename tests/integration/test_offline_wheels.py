"""Wheels for devices without an index: named, hashed, and installable with the index cut off."""

import hashlib
import json
import subprocess
import sys

import pytest

from simulations.errors import ReleaseError
from simulations.offline_wheels import (
    REQUIREMENTS,
    TAGS,
    Wheel,
    WheelRequest,
    collect_wheels,
    download_command,
    requirements_text,
    wheel_of,
)
from tests.support.command_line import fedcell
from tests.support.system_parts import REPOSITORY

CONSTRAINTS = REPOSITORY / "constraints.txt"
RUN_FROM = """
import sys
sys.path[:0] = sys.argv[1:2]
sys.argv = ["fedcell-device", "selftest", "--json"]
from edge_client.cli import main
main()
"""
NO_INDEX = "the package index cannot be reached"


def wanted(platform="linux-x86_64", **choices):
    return WheelRequest(platform=platform, python="3.11", constraints=CONSTRAINTS, **choices)


def command_for(tmp_path, **choices):
    own = tmp_path / "fedcell-0.1.0-py3-none-any.whl"
    return download_command(wanted(**choices), own, tmp_path)


def test_wheels_are_asked_for_by_tags_and_constraints_and_never_built(tmp_path):
    words = command_for(tmp_path)

    assert "--only-binary=:all:" in words
    assert words[words.index("-c") + 1] == str(CONSTRAINTS)
    assert [words[n + 1] for n, word in enumerate(words) if word == "--platform"] == list(
        TAGS["linux-x86_64"]
    )
    assert [words[n + 1] for n, word in enumerate(words) if word == "--abi"] == [
        "cp311",
        "abi3",
        "none",
    ]
    assert words[-1].endswith("fedcell-0.1.0-py3-none-any.whl")


@pytest.mark.parametrize("platform", ["musl-x86_64", "linux-armv7l", "musllinux_1_2_x86_64"])
def test_platform_without_onnx_runtime_gets_the_rest_and_no_resolution(tmp_path, platform):
    words = command_for(tmp_path, platform=platform)
    text = requirements_text(wanted(platform), [])

    assert words[-6:] == ["--no-deps", "cffi", "cryptography", "numpy", "paho-mqtt", "pycparser"]
    assert "--no-deps --require-hashes" in text
    assert "# Without onnxruntime: the NumPy backend serves." in text


def test_library_of_the_system_is_left_out(tmp_path):
    words = command_for(tmp_path, platform="linux-armv7l", without=("numpy",))
    text = requirements_text(wanted("linux-armv7l", without=("numpy",)), [])

    assert words[-5:] == ["--no-deps", "cffi", "cryptography", "paho-mqtt", "pycparser"]
    assert "# Without numpy: the system must have it." in text


def test_requirements_name_every_wheel_with_its_hash(tmp_path):
    path = tmp_path / "paho_mqtt-2.2.0-py3-none-any.whl"
    path.write_bytes(b"wheel")
    digest = hashlib.sha256(b"wheel").hexdigest()

    assert wheel_of(path) == Wheel("paho-mqtt", "2.2.0", path.name, 5, digest)
    assert requirements_text(wanted(), [wheel_of(path)]).splitlines()[-1] == (
        f"paho-mqtt==2.2.0 --hash=sha256:{digest}"
    )


def test_folder_that_holds_wheels_and_missing_files_are_refused(tmp_path):
    (tmp_path / "old.whl").touch()
    with pytest.raises(ReleaseError, match="holds wheels already; give an empty folder"):
        collect_wheels(wanted(), tmp_path)
    nowhere = WheelRequest(platform="local", python="3.11", constraints=tmp_path / "none.txt")
    with pytest.raises(ReleaseError, match=r"none.txt: there is no such file; give --constraints"):
        collect_wheels(nowhere, tmp_path / "new")
    with pytest.raises(ReleaseError, match="there is no such wheel; check --fedcell"):
        collect_wheels(wanted(fedcell=tmp_path / "fedcell.whl"), tmp_path / "new")


@pytest.fixture(scope="module")
def local_wheels(tmp_path_factory):
    """The set for this machine, made by the command."""
    folder = tmp_path_factory.mktemp("wheels")
    words = ["download", "-q", "--no-deps", "--retries=0", "--timeout=5", "-d", str(folder / "try")]
    probe = subprocess.run(
        [sys.executable, "-m", "pip", *words, "-c", str(CONSTRAINTS), "pycparser"],
        capture_output=True,
        check=False,
        timeout=60,
    )
    if probe.returncode:
        pytest.skip(NO_INDEX)
    ran = fedcell(
        "release", "wheels", "--constraints", CONSTRAINTS, "--out", folder / "set", "--json"
    )
    assert ran.code == 0, ran.err
    return folder / "set", json.loads(ran.out)


@pytest.mark.soak
def test_set_for_this_machine_is_pinned_and_installs_without_an_index(local_wheels, tmp_path):
    folder, said = local_wheels
    pins = dict(line.split("==") for line in CONSTRAINTS.read_text().splitlines() if "==" in line)
    found = {wheel.name: wheel for wheel in map(wheel_of, folder.glob("*.whl"))}
    foreign = {name: wheel.version for name, wheel in found.items() if name != "fedcell"}
    ran = subprocess.run(
        [
            *(sys.executable, "-m", "pip", "--isolated", "install", "-q", "--no-index"),
            *("--find-links", str(folder), "--require-hashes", "-r", str(folder / REQUIREMENTS)),
            *("--target", str(tmp_path / "installed"), "--no-compile"),
        ],
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )

    assert len(found) <= 10
    assert set(said["files"]) == {wheel.file for wheel in found.values()}
    assert foreign == {name: pins[name] for name in foreign}
    assert ran.returncode == 0, ran.stderr
    answer = subprocess.run(
        [sys.executable, "-S", "-c", RUN_FROM, str(tmp_path / "installed")],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert json.loads(answer.stdout)["passed"] is True


@pytest.mark.soak
def test_wheel_that_was_altered_is_not_installed(local_wheels, tmp_path):
    folder, _ = local_wheels
    text = (folder / REQUIREMENTS).read_text()
    last = text.splitlines()[-1]
    wrong = tmp_path / REQUIREMENTS
    wrong.write_text(f"{last[:-8]}{'0' * 8}\n")
    ran = subprocess.run(
        [
            *(sys.executable, "-m", "pip", "--isolated", "install", "-q", "--no-index"),
            *("--find-links", str(folder), "--require-hashes", "-r", str(wrong)),
            *("--target", str(tmp_path / "installed"), "--no-deps"),
        ],
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )

    assert ran.returncode != 0
    assert "DO NOT MATCH THE HASHES" in ran.stderr
