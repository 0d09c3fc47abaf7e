"""Records the pin of an app bundle and what a deployment is told, each in its first form.

Run it once: python -m tests.golden.make_deployment. A file that is there is never overwritten: what
deployments have written must load for ever.
"""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

from models.wire.app_pin import AppPin
from models.wire.envelope import SigningKey
from server.deployment.folder import deployment_json
from server.deployment.place import Deployment

FOLDER = Path(__file__).parent / "deployment_v1"
PIN, TOLD = FOLDER / "app-pin.json", FOLDER / "deployment.json"
SERVER_KEY = bytes(range(32))


def recorded_pin() -> AppPin:
    """Return a pin of an app."""
    return AppPin(
        app="fedcell/fedcell",
        version="0.1.0",
        fab_sha256="5f" * 32,
        flwr="1.41.0",
        issued=datetime(2026, 6, 1, 12, tzinfo=UTC),
    )


def recorded_deployment() -> Deployment:
    """Return what a deployment is told, nothing of it as usual."""
    return Deployment(
        folder=FOLDER.resolve(),
        hosts=("rounds.example", "192.0.2.7", "fd00::7"),
        policy_key=Path("/etc/fedcell/server.pem"),
        database="postgresql://hub@db.example/fleet",
        port=19092,
        listen="192.0.2.7",
        inner_port=19093,
        requests_per_s=500,
    )


def main() -> None:
    FOLDER.mkdir(exist_ok=True)
    if not PIN.exists():
        PIN.write_bytes(recorded_pin().signed(SigningKey.from_bytes(SERVER_KEY)))
    if not TOLD.exists():
        TOLD.write_bytes(deployment_json(recorded_deployment()))


if __name__ == "__main__":
    main()
