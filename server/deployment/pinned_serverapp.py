"""The process that is a ServerApp: Flower's own, which installs and runs one bundle and no other.

Started as a script, so that no module of fedcell's is imported before the bundle's own. SuperExec
has looked at what the SuperLink calls the bundle; here its bytes are looked at. ADR 0042.
"""

from __future__ import annotations

import hashlib
import importlib
import sys
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

FLOWER_APP = "flwr.superlink.runtime.run_serverapp"
INSTALL, RUN = "install_from_fab", "run_"


class NotPinnedError(Exception):
    """What was handed out is not the pinned bundle; nothing of it was run."""


@dataclass(slots=True)
class PinnedApp:
    """Stands between Flower and a bundle.

    Attributes:
        sha256: of the one bundle that is run, hex.
    """

    sha256: str
    _is_installed: bool = field(default=False, init=False)

    def installing(self, install: Callable[..., Any]) -> Callable[..., Any]:
        """Return Flower's function that installs a bundle, for this one alone."""

        def installed(content: bytes, *arguments: Any, **named: Any) -> Any:
            found = hashlib.sha256(content).hexdigest()
            if found != self.sha256:
                raise NotPinnedError(f"bundle {found} is not the pinned bundle {self.sha256}")
            self._is_installed = True
            return install(content, *arguments, **named)

        return installed

    def running(self, run: Callable[..., Any]) -> Callable[..., Any]:
        """Return Flower's function that runs an app, for what was looked at alone."""

        def ran(*arguments: Any, **named: Any) -> Any:
            if not self._is_installed:
                raise NotPinnedError("this Flower runs a bundle that was not looked at")
            return run(*arguments, **named)

        return ran


def put_before_flower(app: PinnedApp) -> None:
    """Have Flower's ServerApp ask for every bundle.

    Raises:
        SystemExit: this Flower has no such place.
    """
    flower = importlib.import_module(FLOWER_APP)
    for name, made in ((INSTALL, app.installing), (RUN, app.running)):
        if not hasattr(flower, name):
            sys.exit(f"{FLOWER_APP} has no {name}: pip install 'flwr==1.41.*'")
        setattr(flower, name, made(getattr(flower, name)))


def main() -> None:
    """Run a ServerApp; the arguments are a SHA-256 and those of `flwr-serverapp` but its token."""
    from flwr.superlink.cli.flwr_serverapp import flwr_serverapp

    pinned, *words = sys.argv[1:]
    sys.argv = ["flwr-serverapp", *words, "--token", sys.stdin.readline().strip()]
    put_before_flower(PinnedApp(pinned))
    flwr_serverapp()


if __name__ == "__main__":
    main()
