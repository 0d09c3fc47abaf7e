"""`fedcell-device` on a machine without torch, Opacus and what else learns: their import fails.

python -m tests.support.torchless ARGUMENTS...
"""

from __future__ import annotations

import sys

LEARNING = frozenset({"torch", "opacus", "dp_accounting", "scipy", "sklearn", "flwr"})


class Blocked:
    """Finds none of them."""

    def find_spec(self, name: str, path: object = None, target: object = None) -> None:
        """Refuse what learns; others are found by whoever comes next."""
        if name.partition(".")[0] in LEARNING:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)


if __name__ == "__main__":
    sys.meta_path.insert(0, Blocked())  # type: ignore[arg-type]
    from edge_client.cli import main

    sys.exit(main())
