"""Records `authority.json` of a fleet as it was before a fleet could name a SuperLink.

Run it once: python -m tests.golden.make_authority_file. A file that is there is never overwritten.
"""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory

from server.authority.home import STATE_FILE, Fleet, make_home

FILE = Path(__file__).parent / "authority_v1.json"
NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)


def recorded_fleet() -> Fleet:
    """Return the fleet, without its authorities."""
    return Fleet(
        name="plant",
        broker="broker.example:8883",
        broker_hosts=("broker.example", "192.0.2.7"),
        enrolment_hosts=("join.example",),
        server_keys={"0123456789abcdef": "00" * 32},
        life_days=20,
    )


def main() -> None:
    if FILE.exists():
        return
    with TemporaryDirectory() as folder:
        make_home(Path(folder), recorded_fleet(), now=NOW)
        FILE.write_bytes((Path(folder) / STATE_FILE).read_bytes())


if __name__ == "__main__":
    main()
