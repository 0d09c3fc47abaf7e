"""Which extra of fedcell brings which library, and how to say that one is missing."""

from __future__ import annotations

import importlib.util

BASE_LIBRARIES = ("cryptography", "numpy", "onnxruntime", "paho")
"""Import names of what every install of fedcell has."""

LIBRARIES_OF_EXTRA: dict[str, tuple[str, ...]] = {
    "server": (
        "alembic",
        "fastapi",
        "iotcore",
        "jinja2",
        "prometheus_client",
        "pyarrow",
        "rich",
        "sqlalchemy",
        "typer",
        "tzdata",
        "uvicorn",
    ),
    "train": ("dp_accounting", "flwr", "onnx", "opacus", "pyarrow", "sklearn", "torch"),
    "sim": ("matplotlib", "ray"),
    "tuf": ("tuf",),
}
"""Import names that each extra adds, the smaller extra first where two bring the same library."""


def extra_that_brings(module: str) -> str | None:
    """Name the smallest extra that brings a module, None where no extra does.

    Args:
        module: import name, with or without submodules (`sqlalchemy.orm`).
    """
    top = module.partition(".")[0]
    for extra, libraries in LIBRARIES_OF_EXTRA.items():
        if top in libraries:
            return extra
    return None


def missing_library_line(module: str) -> str:
    """Say in one line what to install so that a module can be imported."""
    top = module.partition(".")[0]
    if top in BASE_LIBRARIES:
        return f"the library '{top}' is missing; pip install --force-reinstall fedcell"
    extra = extra_that_brings(module)
    if extra is None:
        return f"the module '{module}' is missing; reinstall with: pip install 'fedcell[all]'"
    return f"the library '{top}' is missing; pip install \"fedcell[{extra}]\""


def is_installed(module: str) -> bool:
    """Tell whether a top-level module can be found, without importing it."""
    return importlib.util.find_spec(module) is not None


def missing_libraries(extra: str) -> tuple[str, ...]:
    """List the libraries of an extra that are not installed here."""
    return tuple(name for name in LIBRARIES_OF_EXTRA[extra] if not is_installed(name))
