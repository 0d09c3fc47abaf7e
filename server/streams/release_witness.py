"""What a run itself bears witness to: that each release carried noise, and the weights it led to.

Before a step's weights are kept, what the server stepped with is held against the step's committed
sum. The difference must have the size of the claimed noise; a release function that adds none, or
too little, ends the run there. What is kept says that it held, of which ledger entry, and the
digest of the weights. The size itself is not kept: it would tell a little of what was released.
"""

from __future__ import annotations

import hashlib
import json
import math
from statistics import NormalDist
from typing import TYPE_CHECKING, Final

import numpy as np

from models.durable_file import write_durably
from privacy import UpdateGrid
from privacy.banded_factor import inverse_column

from ..privacy_home.privacy_errors import StreamRefusedError

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from privacy import StreamPolicy

WITNESS_FILE: Final = "releases.json"
FALSE_ALARM: Final = 1e-9
"""Probability with which honest noise of one step looks too small."""
_NOTHING: Final = 1e-6
"""Noise below this share of the claimed one is none, however few weights there are."""


def weights_digest(weights: NDArray[np.floating]) -> str:
    """SHA-256 of weights as they leave: float32, little-endian, hex 64."""
    return hashlib.sha256(weights.astype("<f4").tobytes()).hexdigest()


def noise_share(
    released: NDArray[np.float64], total: NDArray[np.int64], *, policy: StreamPolicy, index: int
) -> float:
    """Root mean square of what a release holds beyond its sum, over the claimed one.

    Step t's noise has the variance σ²·Σ_{j≤t} a_j², a the inverse factor's first column.

    Args:
        released: mean update, float64, shape (n_weights,).
        total: committed sum on the grid, int64, of the same shape.
        policy: of the stream.
        index: t.
    """
    privacy = policy.privacy
    grid = UpdateGrid(clipping_norm=privacy.clipping_norm)
    noise = (released * policy.cohort_size - grid.restore(total)) / privacy.clipping_norm
    claimed = privacy.noise_multiplier * math.hypot(*inverse_column(index + 1, privacy.bands))
    return float(np.sqrt(np.mean(noise**2))) / claimed


def least_noise_share(size: int) -> float:
    """What honest noise stays above but for `FALSE_ALARM` (Wilson and Hilferty 1931).

    Args:
        size: number of weights.
    """
    spread = 2 / (9 * size)
    root = 1 - spread + NormalDist().inv_cdf(FALSE_ALARM) * math.sqrt(spread)
    return max(_NOTHING, math.pow(max(root, 0.0), 1.5))


def bear_witness(
    folder: Path,
    released: NDArray[np.float64],
    total: NDArray[np.int64],
    *,
    policy: StreamPolicy,
    index: int,
    entry_hash: str,
    weights: NDArray[np.float64],
) -> None:
    """Note durably that a step's release carried its noise.

    Args:
        folder: of the run.
        released: what the server stepped with.
        total: the step's committed sum.
        policy: of the stream.
        index: of the step.
        entry_hash: of its ledger entry.
        weights: after the step.

    Raises:
        StreamRefusedError: the release carries less noise than is claimed; no weights may leave.
    """
    share = noise_share(released, total, policy=policy, index=index)
    if not share >= least_noise_share(len(total)):
        what = f"what step {index} released carries less noise than its ledger entry claims"
        remedy = "release nothing of this run; run fedcell privacy audit"
        raise StreamRefusedError(folder, what, remedy)
    seen = read_witness(folder)
    seen[entry_hash] = weights_digest(weights)
    write_durably(folder / WITNESS_FILE, (json.dumps(seen, indent=1) + "\n").encode("ascii"))


def read_witness(folder: Path) -> dict[str, str]:
    """Return the digest of the weights after each step whose noise was seen, by entry's hash.

    A file that is not there, or is damaged, bears witness to nothing.
    """
    try:
        found = json.loads((folder / WITNESS_FILE).read_bytes())
    except (OSError, ValueError):
        return {}
    if not isinstance(found, dict):
        return {}
    return {str(entry): str(digest) for entry, digest in found.items()}
