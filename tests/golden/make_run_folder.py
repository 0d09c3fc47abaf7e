"""Writes run_folder_v1: run once, by the last version whose runs kept no counts of devices.

It needs that version's `server.rounds`; later ones read the folder and never write one like it.
"""

from datetime import UTC, datetime
from pathlib import Path

import numpy as np

from privacy import GaussianRelease
from server.engine.rounds import RunFolder
from server.engine.server_optimizer import OptimizerState


def main() -> None:
    """Write the folder beside this script."""
    folder = RunFolder(Path(__file__).parent / "run_folder_v1")
    state = OptimizerState.start(np.linspace(-1, 1, 5, dtype=np.float32))
    for index in range(3):
        event = GaussianRelease(
            stream="run-of-yesterday",
            index=index,
            mechanism="independent_gaussian",
            noise_multiplier=4.595,
            clipping_norm=0.3,
            cohort_size=114,
            most_participations=index + 1,
        )
        folder.charge(event, kind="stream", at=datetime(2026, 3, 1 + index, tzinfo=UTC))
        folder.save_checkpoint(state, index=index)
    folder.save_weights(state.weights.astype(np.float32))
    folder.save_report({"schema_version": 1, "status": "finished"})


if __name__ == "__main__":
    main()
