"""A run's candidate through the quality gate: both bundles over the datasets, and what was decided.

The decision stands in `proposal.json` beside the run's report. Only a candidate that passed is
proposed; what releases a model reads it there.
"""

from __future__ import annotations

import json
import os
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from models.durable_file import write_durably
from models.evaluation import evaluated_rows, quality_of_rows
from models.fleet_predictions import Reasons, predict_fleet, read_predictions
from models.inference import Predictor
from models.wire.counts import CountKind

from ..counts.private_metrics import private_evaluation, vetoes
from ..counts.run_counts import kept_counts
from .quality_gate import CELLS, REFERENCE, GateDecision, Judged, decide
from .reference_fleet import ReferenceHalves

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from datetime import datetime

    import numpy as np
    from numpy.typing import NDArray

    from models.bundle import Bundle
    from models.fleet_dataset import Fleet
    from models.metrics import Quality

    from ..counts.private_metrics import PrivateEvaluation, ReleasedCounts

PROPOSAL_FILE: Final = "proposal.json"
DAYS_BETWEEN_WINDOWS: Final = 7


@dataclass(frozen=True, slots=True, kw_only=True)
class JudgedOn:
    """What a candidate is judged on.

    Attributes:
        reference: simulated fleet with outcomes, on which nothing was fitted.
        cells: public cells with outcomes; None leaves them out.
        counts: private releases of runs, oldest first; they can veto.
        is_half_fitted: whether the candidate was fitted on half of the reference fleet: the other
            half judges then.
    """

    reference: Fleet
    cells: Fleet | None = None
    counts: Sequence[ReleasedCounts] = ()
    is_half_fitted: bool = False


def judge(
    candidate: Bundle,
    current: Bundle,
    on: JudgedOn,
    *,
    now: datetime,
    tell: Callable[[str], None] = lambda _: None,
) -> GateDecision:
    """Measure both bundles on the same windows, and decide.

    Args:
        candidate: of the run.
        current: that devices have.
        on: what they are judged on.
        now: aware time; readings more than a day later are refused.
        tell: told what is being done.

    Raises:
        DatasetError: a dataset cannot be used, or holds no window that can be judged.
    """
    datasets = {REFERENCE: on.reference} | ({} if on.cells is None else {CELLS: on.cells})
    judged = []
    with tempfile.TemporaryDirectory(prefix="fedcell-judge-") as scratch:
        table = Path(scratch) / "predictions.parquet"
        for name, fleet in datasets.items():
            found = []
            of_devices = None
            if name == REFERENCE and on.is_half_fitted:
                of_devices = ReferenceHalves.of(len(fleet.profiles)).judge
            for bundle in (current, candidate):
                tell(f"{bundle.version} on {name}")
                found.append(_quality(bundle, fleet, table, now=now, of_devices=of_devices))
            judged.append(Judged(name, current=found[0], candidate=found[1]))
    return decide(judged, vetoes=private_vetoes(on.counts, candidate=candidate, current=current))


def private_vetoes(
    counts: Sequence[ReleasedCounts], *, candidate: Bundle, current: Bundle
) -> list[str]:
    """Return the figures in which devices' counts hold the candidate worse beyond doubt.

    None where not both models were evaluated over the same bins.
    """
    ours = _evaluation(counts, current)
    theirs = _evaluation(counts, candidate)
    return [] if ours is None or theirs is None else vetoes(theirs, ours)


def keep_decision(
    folder: Path,
    decision: GateDecision,
    *,
    candidate: Bundle,
    current: Bundle,
    now: datetime,
    sha256: Mapping[str, str] | None = None,
    is_half_fitted: bool = False,
) -> Path:
    """Write what was decided beside a run's report, durably.

    Args:
        folder: of the run.
        decision: of the gate.
        candidate: of the run.
        current: that it was held against.
        now: aware time.
        sha256: of each dataset's folder, by the dataset's name.
        is_half_fitted: whether half of the reference fleet judged.

    Returns:
        The file.
    """
    path = folder / PROPOSAL_FILE
    told = {
        **decision.to_json(),
        "at": now.isoformat(),
        "candidate": {"version": candidate.version, "digest": candidate.digest},
        "current": {"version": current.version, "digest": current.digest},
        "sha256": {**(sha256 or {})},
        "is_half_fitted": is_half_fitted,
    }
    text = json.dumps(told, indent=2, allow_nan=False, ensure_ascii=False) + "\n"
    write_durably(path, text.encode())
    return path


def read_proposal(folder: Path, candidate: Bundle) -> dict[str, Any] | None:
    """Return the decision on a candidate that stands in a run's folder; None without one.

    Args:
        folder: of the run.
        candidate: a decision on any other bundle is none on this.
    """
    try:
        told: dict[str, Any] = json.loads((folder / PROPOSAL_FILE).read_bytes())
        return told if told["candidate"]["digest"] == candidate.digest else None
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return None


def _quality(
    bundle: Bundle,
    fleet: Fleet,
    table: Path,
    *,
    now: datetime,
    of_devices: NDArray[np.bool_] | None,
) -> Quality:
    predict_fleet(
        fleet,
        Predictor(bundle, num_threads=os.cpu_count() or 1),
        table,
        now_s=int(now.timestamp()),
        every_days=DAYS_BETWEEN_WINDOWS,
        reasons=Reasons.NONE,
    )
    found = read_predictions(table)
    rows = evaluated_rows(found, fleet.outcomes(), fleet.directory)
    if of_devices is not None:
        rows = rows.take(of_devices[rows.windows.device])
    return quality_of_rows(found, rows)


def _evaluation(counts: Sequence[ReleasedCounts], bundle: Bundle) -> PrivateEvaluation | None:
    of_model = [
        one
        for one in counts
        if one.question.kind is CountKind.EVALUATION
        and one.question.model_version == bundle.version
    ]
    if not of_model:
        return None
    bins = replace(of_model[-1].question, as_of_s=0)
    same = [one for one in of_model if replace(one.question, as_of_s=0) == bins]
    return private_evaluation(same, threshold=bundle.threshold)


def counts_of_runs(folders: Sequence[Path]) -> list[ReleasedCounts]:
    """Return the private releases that runs' folders hold, oldest moment first.

    Raises:
        CountsFileError: a file of counts cannot be read.
    """
    found = [one for folder in folders for one in kept_counts(folder)]
    return sorted(found, key=lambda one: one.question.as_of_s)
