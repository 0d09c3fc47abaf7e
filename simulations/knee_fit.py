"""Where cycled cells bend, and how fast they lose past it: the knobs of the knee, fitted.

`python -m simulations.knee_fit FILE…` reads cycling data (columns as `fedcell import-cells` takes
them) and prints, for each set of cells and all together, the state of health at the knee and s,
beside the knobs of `FleetRecipe`.

A cell's capacity, filtered by a 7-cycle median and divided by that of its first ten cycles, is
followed until its end of life by q = 1 - (1 - knee) (n / m)^p - x: m is the cycle on which it
reaches the knee, p one of 0.5, 0.75 and 1, and x the loss past the knee of `degradation`, one full
cycle a day. Knee, s and p are those of a grid that leave the least squared error.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from models.cycling_cells import read_cells
from models.telemetry import COLUMN

from .degradation import KNEE_LOSS_A_CYCLE, KNEE_STEEPENING
from .recipe import FleetRecipe

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from models.cycling_cells import ImportedCells

    Floats = NDArray[np.float64]

_KNEES = np.round(np.arange(0.74, 0.981, 0.015), 3)
_RATES = np.exp(np.linspace(np.log(0.05), np.log(40.0), 28))
_EXPONENTS = np.array([0.5, 0.75, 1.0])
_FIRST_CYCLES = 10
_MEDIAN_OF = 7
_LEAST_CYCLES = 60
_LEAST_ABOVE = 20
_GRADUAL_BELOW = 0.7
"""Cells of a smaller s have hardly a knee: past it their loss e-folds in 300 cycles or more."""


class CellKnee(NamedTuple):
    """The fit of one cell.

    Attributes:
        knee_soh: state of health at the knee.
        knee_rate: s.
        share_of_life: cycles until the knee against those until the end of life.
        error: root mean square of what is left, fraction of the capacity when new.
        error_without: the same without any knee.
    """

    knee_soh: float
    knee_rate: float
    share_of_life: float
    error: float
    error_without: float


@dataclass(frozen=True, slots=True, kw_only=True)
class KneeSpread:
    """Knees of a set of cells.

    Attributes:
        name: of the set.
        cells: that reach their end of life, and were fitted.
        soh_mean: mean state of health at the knee.
        soh_sd: its spread.
        gradual_share: cells with hardly a knee.
        sharp_rate: median s of the other cells.
        sharp_sigma: sigma of its logarithm.
        gradual_rate: median s of those with hardly a knee.
        error: median root mean square error, fraction of the capacity when new.
        error_without: the same without any knee.
    """

    name: str
    cells: int
    soh_mean: float
    soh_sd: float
    gradual_share: float
    sharp_rate: float
    sharp_sigma: float
    gradual_rate: float
    error: float
    error_without: float


def fit_cell(health: Floats) -> CellKnee:
    """Fit the knee of one cell.

    Args:
        health: capacity against that when new, one value a cycle from the first on, until the end
            of life; at least 60.
    """
    best = None
    without = min(_error_of(health, _smooth_loss(len(health), len(health), 1 - health[-1])))
    for knee in _KNEES[health[-1] < _KNEES].tolist():
        reached = int(np.argmax(health <= knee))
        if reached < _LEAST_ABOVE:
            continue
        smooth = _smooth_loss(len(health), reached + 1, 1.0 - knee)
        lost = smooth[:, :, None] + _loss_past_knee(smooth, knee, reached)
        error = _error_of(health, lost)
        place = np.unravel_index(int(np.argmin(error)), error.shape)
        if best is None or error[place] < best.error:
            best = CellKnee(
                knee_soh=knee,
                knee_rate=float(_RATES[place[1]]),
                share_of_life=(reached + 1) / len(health),
                error=float(error[place]),
                error_without=float(without),
            )
    return best or CellKnee(float("nan"), 0.0, 1.0, float(without), float(without))


def knees_of(cells: ImportedCells) -> dict[str, list[CellKnee]]:
    """Fit every cell that reaches its end of life, by data set.

    Raises:
        ValueError: the cells hold no outcomes.
    """
    if cells.outcomes is None:
        raise ValueError("the cells say nothing of their end of life (eol_flag)")
    found: dict[str, list[CellKnee]] = {}
    failed = np.flatnonzero(np.isfinite(cells.outcomes.failed_at_s))
    for number in failed.tolist():
        readings = cells.telemetry.devices(number, number + 1)
        until = readings.at_s <= cells.outcomes.failed_at_s[number]
        capacity = readings.values[until, COLUMN["full_charge_capacity_mah"]].astype(np.float64)
        health = _filtered(capacity)
        if len(health) >= _LEAST_CYCLES:
            found.setdefault(str(cells.datasets[number]), []).append(fit_cell(health))
    return found


def spread_of(name: str, knees: Sequence[CellKnee]) -> KneeSpread:
    """Sum up the knees of a set of cells."""
    rate = np.array([knee.knee_rate for knee in knees])
    soh = np.array([knee.knee_soh for knee in knees])
    gradual = rate < _GRADUAL_BELOW
    return KneeSpread(
        name=name,
        cells=len(knees),
        soh_mean=float(np.nanmean(soh)),
        soh_sd=float(np.nanstd(soh)),
        gradual_share=float(gradual.mean()),
        sharp_rate=_median(rate[~gradual]),
        sharp_sigma=float(np.log(rate[~gradual]).std()) if (~gradual).any() else float("nan"),
        gradual_rate=_median(rate[gradual]),
        error=_median(np.array([knee.error for knee in knees])),
        error_without=_median(np.array([knee.error_without for knee in knees])),
    )


def _median(values: Floats) -> float:
    return float(np.median(values)) if len(values) else float("nan")


def _filtered(capacity: Floats) -> Floats:
    capacity = capacity[np.isfinite(capacity)]
    if len(capacity) < _LEAST_CYCLES:
        return capacity
    windows = np.lib.stride_tricks.sliding_window_view(capacity, _MEDIAN_OF)
    filtered: Floats = np.median(windows, axis=1)
    return filtered / np.median(capacity[:_FIRST_CYCLES])


def _smooth_loss(num_cycles: int, reached: int, loss: float) -> Floats:
    """Return loss (n / reached)^p for each p, shape (n_cycles, n_exponents)."""
    cycle = np.arange(1, num_cycles + 1, dtype=np.float64)[:, None]
    smooth: Floats = loss * (cycle / reached) ** _EXPONENTS
    return smooth


def _loss_past_knee(smooth: Floats, knee: float, reached: int) -> Floats:
    """Return the loss past the knee, shape (n_cycles, n_exponents, n_rates)."""
    lost = np.zeros((*smooth.shape, len(_RATES)))
    now = np.zeros(lost.shape[1:])
    a_cycle = KNEE_LOSS_A_CYCLE * _RATES
    for cycle in range(reached, len(smooth)):
        depth = now + (knee - 1.0 + smooth[cycle])[:, None]
        now += a_cycle * (1.0 + KNEE_STEEPENING * np.maximum(depth, 0.0))
        np.minimum(now, 2.0, out=now)
        lost[cycle] = now
    return lost


def _error_of(health: Floats, lost: Floats) -> Floats:
    """Return the root mean square error over the cycles, the first axis."""
    left = 1.0 - lost - health.reshape(-1, *[1] * (lost.ndim - 1))
    error: Floats = np.sqrt(np.mean(left * left, axis=0))
    return error


def main(files: Sequence[Path]) -> None:
    """Print the fit of some files of cells beside the knobs of the default recipe."""
    found = knees_of(read_cells(files))
    rows = [spread_of(name, knees) for name, knees in sorted(found.items())]
    rows.append(spread_of("all", [knee for knees in found.values() for knee in knees]))
    recipe = FleetRecipe()
    lines = [
        "set           cells  SOH at the knee  gradual  s sharp  sigma  s gradual   error  without"
    ]
    lines += [
        f"{row.name:<12} {row.cells:>6}    {row.soh_mean:.3f} ± {row.soh_sd:.3f}  "
        f"{row.gradual_share:>7.0%}  {row.sharp_rate:>7.2f}  {row.sharp_sigma:>5.2f}  "
        f"{row.gradual_rate:>9.2f}  {row.error:.4f}   {row.error_without:.4f}"
        for row in rows
    ]
    lines.append(
        f"{'recipe':<12} {'':>6}    {recipe.knee_soh_mean:.3f} ± {recipe.knee_soh_sd:.3f}  "
        f"{recipe.gradual_share:>7.0%}  {recipe.knee_rate_median:>7.2f}  "
        f"{recipe.knee_rate_sigma:>5.2f}  {recipe.knee_rate_median * recipe.gradual_factor:>9.2f}"
    )
    sys.stdout.write("\n".join([*lines, ""]))


if __name__ == "__main__":
    main([Path(name) for name in sys.argv[1:]])
