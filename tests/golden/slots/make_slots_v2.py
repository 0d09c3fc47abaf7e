"""Writes v2/: a folder of models with two slots, as `slots.json` without a checksum left it.

Run once, with the code of that version, from a checkout of it.
"""

import shutil
import tempfile
from datetime import UTC, datetime
from pathlib import Path

from edge_client.model_store import ModelStore
from tests.support.line_bundle import trusted_keys, write_line_bundle

NOW = datetime(2026, 6, 1, 12, tzinfo=UTC)


def main() -> None:
    """Write the folder beside this script."""
    with tempfile.TemporaryDirectory() as scratch:
        models = ModelStore(Path(scratch) / "device.db.models")
        bundle = write_line_bundle(Path(scratch) / "line.zip")
        models.install(bundle, trusted_keys=trusted_keys(), now=NOW)
        models.open(now=NOW)
        models.commit(NOW)
        folder = Path(__file__).with_name("v2")
        shutil.copytree(models.folder, folder, ignore=shutil.ignore_patterns(".lock"))


if __name__ == "__main__":
    main()
