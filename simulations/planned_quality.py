"""From quality studies to the measured runs that privacy plans quote.

`python -m simulations.planned_quality STUDY/quality.json …` in the project's folder puts a run for
each study into `privacy/simulated_quality.json`, in place of an earlier one by the same command.
"""

from __future__ import annotations

import json
import math
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from models.durable_file import write_durably
from models.network_shape import NUM_WEIGHTS
from privacy.planner import factor_error
from privacy.simulated_quality import FILE, SimulatedRun

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

DATA_FILE: Final = Path("privacy") / FILE


def run_of(summary: Mapping[str, Any]) -> SimulatedRun:
    """Read the summary of one study as a measured run.

    Args:
        summary: of `simulations.quality_study`, as its `quality.json` holds it.
    """
    plan, privacy, seeds = summary["plan"], summary["privacy"], summary["seeds"]
    devices = summary["fleet"]["num_devices"]
    error = factor_error(plan["num_rounds"], privacy["bands"])
    signal = plan["num_rounds"] * plan["cohort_size"] / (privacy["noise_multiplier"] * error)
    figures = {
        f"{arm}_{metric}": tuple(round(seed[place][metric], 5) for seed in seeds)
        for arm, place in (
            ("start", "start"),
            ("noiseless", "without_noise"),
            ("private", "private"),
        )
        for metric in ("auc", "average_precision")
    }
    return SimulatedRun(
        devices=devices,
        weights=NUM_WEIGHTS,
        num_rounds=plan["num_rounds"],
        cohort_size=plan["cohort_size"],
        participations=privacy["participations"],
        separation=privacy["min_separation"],
        bands=privacy["bands"],
        noise_multiplier=privacy["noise_multiplier"],
        epsilon=privacy["epsilon_release"],
        delta=privacy["delta"],
        record_noise_multiplier=plan["local"]["record_noise_multiplier"],
        signal_to_noise=signal / math.sqrt(NUM_WEIGHTS),
        prevalence=round(seeds[0]["start"]["prevalence"], 5),
        source=(
            f"fedcell simulate quality --devices {devices} --cohort {plan['cohort_size']} "
            f"--rounds {plan['num_rounds']} --epsilon {plan['epsilon']:g} "
            f"--delta {plan['delta']:g} --seeds {len(seeds)}"
        ),
        **figures,
    )


def main(arguments: Sequence[str]) -> None:
    """Put the summaries named into the data file."""
    known = json.loads(DATA_FILE.read_text(encoding="utf-8"))["runs"] if DATA_FILE.exists() else []
    by_source = {run["source"]: SimulatedRun.from_json(run) for run in known}
    for name in arguments:
        run = run_of(json.loads(Path(name).read_text(encoding="utf-8")))
        by_source[run.source] = run
    runs = sorted(by_source.values(), key=lambda run: run.signal_to_noise)
    content = {"schema_version": 1, "runs": [run.to_json() for run in runs]}
    write_durably(DATA_FILE, (json.dumps(content, indent=2) + "\n").encode())


if __name__ == "__main__":
    main(sys.argv[1:])
