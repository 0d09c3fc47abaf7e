"""Names of the files that a run leaves in its folder, beside those of its stream and its home."""

from __future__ import annotations

from typing import Final

REPORT_FILE: Final = "run.json"
START_FILE: Final = "start.npz"
WEIGHTS_FILE: Final = "weights.npz"
BUNDLE_FILE: Final = "bundle.zip"
"""What a finished run is exported as, where its starter does so."""
COMMAND_FILE: Final = "command.json"
"""How the run was started, in whatever form its starter can read again."""
