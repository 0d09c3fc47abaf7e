"""How much does a device have to hold to predict, beside what training needs?

Sizes are of the files that the installed distributions list, compiled modules left out: what a
package index delivers, whatever ran here before.
"""

from __future__ import annotations

from importlib.metadata import distribution

from simulations.offline_wheels import closure
from tests.support.figures import Figures

FIGURES = Figures("edge")
MOST_DISTRIBUTIONS = 9
MOST_MB = 140.0
MOST_OF_TORCH = 1 / 5


def megabytes_of(names):
    """Size of the files of distributions on disk, MB."""
    files = {
        file.locate()
        for name in names
        for file in distribution(name).files or ()
        if file.suffix != ".pyc"
    }
    return sum(path.stat().st_size for path in files if path.is_file()) / 1e6


def test_inference_install_is_small():
    inference = closure("fedcell")
    megabytes = megabytes_of(inference)
    torch = megabytes_of(closure("torch") | {"torch", "numpy"})

    FIGURES.add(
        "inference install, distributions beside fedcell",
        len(inference),
        unit="",
        target=MOST_DISTRIBUTIONS,
        better="lower",
    )
    FIGURES.add(
        "inference install, size",
        megabytes,
        unit="MB",
        target=MOST_MB,
        better="lower",
        against=f"{', '.join(sorted(inference))}",
    )
    FIGURES.add(
        "inference install / torch closure",
        megabytes / torch,
        unit="ratio",
        target=MOST_OF_TORCH,
        better="lower",
        against=f"torch with what it needs and numpy, {torch:.0f} MB",
    )

    assert len(inference) <= MOST_DISTRIBUTIONS
    assert megabytes <= MOST_MB
    assert megabytes / torch <= MOST_OF_TORCH
