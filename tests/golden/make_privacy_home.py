"""Writes privacy_home_v1: run once, by the last version whose counts knew no limits on counts.

It needs that version's `server.privacy_home`; later ones read the folder and never write one like
it.
"""

import shutil
import tempfile
from datetime import UTC, datetime
from pathlib import Path

from privacy import CountRelease
from server.privacy_home.participation_counts import StepCost, StreamRecord
from server.privacy_home.privacy_ledger import COUNTS_FILE, HOME_FILE, LEDGER_FILE, open_home

DEVICES = [f"device-{number}" for number in range(16)]
HELD_OUT = ["device-10", "device-12"]
COUNT = {"noise_multiplier": 10.0, "sensitivity": 1.0, "policy_digest": "d" * 64}


def main() -> None:
    """Write the folder beside this script."""
    target = Path(__file__).parent / "privacy_home_v1"
    target.mkdir()
    with tempfile.TemporaryDirectory() as folder:
        home = open_home(Path(folder))
        cost = StepCost(mu_squared=0.01, max_participations=4, mu_squared_limit=0.04)
        home.open_stream("s", StreamRecord(policy_digest="d", anchor="", max_participations=4))
        home.invite("s", 0, device_ids=DEVICES, choose=lambda _: [1, 2, 3], cost=cost)
        for channel, asked in (("metrics", HELD_OUT), ("drift", DEVICES[1:3])):
            series = f"{COUNT['policy_digest']} {channel}"
            home.count_answers(series, 0, asked, mu_squared=1 / 99)
            release = CountRelease(
                channel=channel,
                index=0,
                cohort_size=2,
                most_answers=1,
                held_out=channel == "metrics",
                **COUNT,
            )
            home.charge(release, kind="stream", at=datetime(2026, 3, 1, tzinfo=UTC))
        home.note_said({"device-2": (3, 0.5)})
        for name in (COUNTS_FILE, HOME_FILE, LEDGER_FILE):
            shutil.copyfile(Path(folder) / name, target / name)


if __name__ == "__main__":
    main()
