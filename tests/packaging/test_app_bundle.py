"""What Flower packs for its nodes: four packages, no simulation, no tests, no docs."""

import io
import json
import shutil
import subprocess
import sys
import sysconfig
import tomllib
import zipfile

import pytest
from flwr.cli.build import build_fab_from_disk

from tests.support.system_parts import REPOSITORY

BUNDLED = ("server", "edge_client", "models", "privacy")
LARGEST_BUNDLE = 10 * 1024 * 1024


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    """The bundle of a copy of the checkout that has everything a packer could wrongly take."""
    copy = tmp_path_factory.mktemp("checkout") / "fedcell"
    for folder in (*BUNDLED, "simulations", "docs", "tests/support"):
        shutil.copytree(
            REPOSITORY / folder,
            copy / folder,
            ignore=shutil.ignore_patterns("__pycache__"),
            dirs_exist_ok=True,
        )
    for name in ("pyproject.toml", "LICENSE", "README.md", ".gitignore"):
        shutil.copy(REPOSITORY / name, copy)
    return build_fab_from_disk(copy)


def test_bundle_holds_every_module_of_four_packages_and_nothing_else(bundle):
    with zipfile.ZipFile(io.BytesIO(bundle)) as archive:
        packed = set(archive.namelist())
    expected = {
        str(path.relative_to(REPOSITORY))
        for package in BUNDLED
        for path in (REPOSITORY / package).rglob("*.py")
    }

    assert packed == expected | {"pyproject.toml", "LICENSE", ".info/CONTENT"}


def test_unpacked_bundle_alone_carries_a_round_on_server_and_device(bundle, tmp_path):
    unpacked = tmp_path / "app"
    with zipfile.ZipFile(io.BytesIO(bundle)) as archive:
        archive.extractall(unpacked)
    config = tomllib.loads((unpacked / "pyproject.toml").read_text())["tool"]["flwr"]["app"]
    # -S leaves out the .pth file by which an editable install finds the checkout.
    libraries = f"import runpy, sys; sys.path.append({sysconfig.get_path('purelib')!r})"
    script = str(REPOSITORY / "tests" / "support" / "bundled_round.py")
    answer = subprocess.run(
        [
            *(sys.executable, "-I", "-S", "-c"),
            f"{libraries}; sys.argv.pop(0); runpy.run_path({script!r}, run_name='__main__')",
            *("-", str(unpacked), str(tmp_path), json.dumps(config["config"])),
        ],
        check=False,
        capture_output=True,
        text=True,
        cwd=tmp_path,
    )

    assert answer.returncode == 0, answer.stderr
    loaded = json.loads(answer.stdout.splitlines()[-1])
    assert {str(unpacked)} == {file[: len(str(unpacked))] for file in loaded}
    report = json.loads((tmp_path / "run" / "run.json").read_text())
    assert (report["status"], report["rounds"][0]["replied"]) == ("finished", 1)


def test_bundle_fits_what_flower_accepts(bundle):
    assert len(bundle) < LARGEST_BUNDLE / 3


def test_same_tree_gives_the_same_bundle(bundle, tmp_path):
    with zipfile.ZipFile(io.BytesIO(bundle)) as archive:
        archive.extractall(tmp_path / "fedcell")
    shutil.rmtree(tmp_path / "fedcell" / ".info")

    assert build_fab_from_disk(tmp_path / "fedcell") == bundle


def test_no_module_bears_a_name_that_flower_drops():
    dropped = [
        str(path.relative_to(REPOSITORY))
        for package in BUNDLED
        for path in (REPOSITORY / package).rglob("*.py")
        if path.name.startswith("test_") or path.name.endswith("_test.py")
    ]

    assert dropped == []


def test_components_are_the_two_flower_apps():
    config = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())

    assert config["tool"]["flwr"]["app"]["components"] == {
        "serverapp": "server.flower_app:app",
        "clientapp": "edge_client.flower_app:app",
    }
