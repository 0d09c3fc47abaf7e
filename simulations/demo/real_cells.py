"""The default bundle on real ageing cells, where they are at hand."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from models.cycling_cells import read_cells
from models.evaluation import device_windows
from models.featurize import featurize

from ..model_study import judge_model
from ..run_report_parts import RealCells

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from models.training.recipe import TrainedModel

LOOK_EVERY_DAYS = 7


def judge_on_cells(
    folder: Path | None, model: TrainedModel, *, tell: Callable[[str], None]
) -> RealCells:
    """Measure the default bundle on all cells, one window a week.

    Args:
        folder: of Parquet files of cycling data; it may be missing. None leaves them out.
        model: of the default bundle.
        tell: takes a line.

    Returns:
        Figures, or the reason why there are none.

    Raises:
        DatasetError: a file there cannot be read.
    """
    if folder is None:
        return _without("a quick demo leaves the real cells out", tell)
    files = sorted(folder.glob("*.parquet"))
    if not files:
        remedy = "set FEDCELL_CELLS to the folder that holds them"
        return _without(f"no real cells in {folder} ({remedy})", tell)
    tell("judging the default bundle on the real cells")
    cells = read_cells(files)
    if cells.outcomes is None:
        return _without(f"the cells in {folder} carry no eol_flag", tell)
    table = featurize(cells.telemetry, cells.profiles, every_days=LOOK_EVERY_DAYS)
    judged = np.flatnonzero(table.is_ok())
    windows = device_windows(table.device[judged], table.as_of_s[judged], cells.outcomes)
    figures = judge_model(model, table.features[judged], windows)
    return RealCells(cells=len(cells.profiles), metrics=figures, reason=None)


def _without(reason: str, tell: Callable[[str], None]) -> RealCells:
    tell(f"going on without real cells: {reason}")
    return RealCells(cells=None, metrics=None, reason=reason)
