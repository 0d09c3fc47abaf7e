import re
import tomllib
from importlib.metadata import packages_distributions

import pytest

from server.extras import (
    BASE_LIBRARIES,
    LIBRARIES_OF_EXTRA,
    extra_that_brings,
    missing_libraries,
    missing_library_line,
)
from tests.support.system_parts import REPOSITORY

PROJECT = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]
INSTALLED_AS = {"prometheus_client": "prometheus-client", "ray": "flwr[simulation]"}
PROVIDERS = packages_distributions()


def distribution_names(requirements):
    return {re.split(r"[<>=!;\s]", line, maxsplit=1)[0].lower() for line in requirements}


@pytest.mark.parametrize("extra", LIBRARIES_OF_EXTRA)
def test_table_agrees_with_what_the_extra_installs(extra):
    declared = distribution_names(PROJECT["optional-dependencies"][extra])
    listed = {
        INSTALLED_AS.get(library, PROVIDERS[library][0].lower())
        for library in LIBRARIES_OF_EXTRA[extra]
    }

    assert listed <= declared
    own = {name for name in declared if not name.startswith(("fedcell", "iotcore"))}
    assert own <= listed


def test_base_table_agrees_with_the_dependencies():
    listed = {PROVIDERS[library][0].lower() for library in BASE_LIBRARIES}

    assert listed == distribution_names(PROJECT["dependencies"])


@pytest.mark.parametrize(
    ("module", "extra"),
    [("sqlalchemy.orm", "server"), ("torch", "train"), ("ray", "sim"), ("json", None)],
)
def test_smallest_extra_is_named(module, extra):
    assert extra_that_brings(module) == extra


def test_missing_base_library_asks_for_a_reinstall():
    assert missing_library_line("onnxruntime") == (
        "the library 'onnxruntime' is missing; pip install --force-reinstall fedcell"
    )


def test_unknown_module_asks_for_everything():
    assert missing_library_line("server.gone").endswith("pip install 'fedcell[all]'")


def test_nothing_is_missing_where_tests_run():
    assert missing_libraries("server") == ()
