import subprocess
import sys
import tomllib
import zipfile
from importlib.metadata import packages_distributions

import pytest

from tests.support.system_parts import REPOSITORY

PACKAGES = {"server", "edge_client", "models", "privacy", "simulations"}
PROJECT = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]


@pytest.fixture(scope="module")
def wheel_names(tmp_path_factory):
    """Names of the files in a wheel built by the backend that the project declares."""
    folder = tmp_path_factory.mktemp("wheel")
    subprocess.run(
        [
            sys.executable,
            "-c",
            f"from hatchling.build import build_wheel; build_wheel({str(folder)!r})",
        ],
        cwd=REPOSITORY,
        check=True,
        capture_output=True,
    )
    (wheel,) = folder.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        return archive.namelist()


def test_wheel_holds_the_five_packages_and_no_other_name(wheel_names):
    tops = {name.split("/")[0] for name in wheel_names}

    assert tops == PACKAGES | {f"fedcell-{PROJECT['version']}.dist-info"}


def test_wheel_says_that_it_is_typed_and_licensed(wheel_names):
    assert {f"{package}/py.typed" for package in PACKAGES} <= set(wheel_names)
    assert any(name.endswith(".dist-info/licenses/LICENSE") for name in wheel_names)


def test_wheel_holds_the_conformance_kit_and_the_units(wheel_names):
    from edge_client import conformance, systemd

    kit = {f"edge_client/conformance/{n}" for n in (*conformance.FILES, conformance.MANIFEST)}
    units = {f"edge_client/systemd/{name}" for name in systemd.NAMES}

    assert kit | units | {"edge_client/conformance/README.md"} <= set(wheel_names)


def test_wheel_leaves_out_what_is_not_committed_code(wheel_names):
    strangers = [
        name
        for name in wheel_names
        if "__pycache__" in name or name.endswith((".db", ".ipynb", ".fab", ".parquet"))
    ]

    assert strangers == []


def test_no_other_distribution_owns_our_names():
    providers = packages_distributions()

    owners = {name: set(providers.get(name, ())) - {"fedcell"} for name in PACKAGES | {"tests"}}

    assert owners == {name: set() for name in PACKAGES | {"tests"}}


def test_every_top_level_package_is_known_to_the_tools():
    config = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["tool"]
    on_disk = {folder.parent.name for folder in REPOSITORY.glob("*/__init__.py")} - {"tests"}

    assert on_disk == PACKAGES
    assert set(config["hatch"]["build"]["targets"]["wheel"]["packages"]) == PACKAGES
    assert set(config["importlinter"]["root_packages"]) == PACKAGES
    assert set(config["mypy"]["packages"]) == PACKAGES
    assert set(config["coverage"]["run"]["source"]) == PACKAGES
