"""What a fleet's values are compared with for drift: the spread over simulated devices.

`python -m simulations.drift_reference FILE` writes the file that a deployed run's configuration
names as `drift-reference`. No device's data is in it.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from models.durable_file import write_durably
from models.private_histograms import drift_question, spread_of
from server.counts.run_counts import DriftReference

from .model_sources import REFERENCE_FLEET, fleet_rows

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


def reference_of(rows: NDArray[np.floating]) -> DriftReference:
    """Return bins that public rows fill evenly, and their shares.

    Args:
        rows: float, shape (n, n_features), of simulated or public devices.

    Raises:
        ValueError: they do not tell two bins of a feature apart.
    """
    question = drift_question(rows, as_of_s=0)
    shares = {name: tuple(of) for name, of in spread_of(question, rows).items()}
    return DriftReference(question.bins, shares)


def main(out: Path) -> None:
    """Write the reference of the simulated fleet that bundles are calibrated on."""
    reference = reference_of(fleet_rows(REFERENCE_FLEET).features)
    write_durably(out, (json.dumps(reference.to_json(), indent=2) + "\n").encode())


if __name__ == "__main__":
    main(Path(sys.argv[1]))
