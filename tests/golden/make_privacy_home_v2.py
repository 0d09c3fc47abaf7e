"""Writes privacy_home_v2: run once, by the last version whose entries did not say their limits.

It needs that version's `server.privacy_home`; later ones read the folder and never write one like
it: its ledger alone does not say how far any device may go.
"""

import shutil
import tempfile
from datetime import UTC, datetime
from pathlib import Path

from privacy import CorrelatedRelease, CountRelease
from server.privacy_home.participation_counts import AnswerCost, StepCost, StreamRecord
from server.privacy_home.privacy_ledger import open_home

DEVICES = [f"device-{number}" for number in range(8)]
NOW = datetime(2026, 3, 1, tzinfo=UTC)
POLICY = "d" * 64


def main() -> None:
    """Write the folder beside this script."""
    target = Path(__file__).parent / "privacy_home_v2"
    target.mkdir()
    with tempfile.TemporaryDirectory() as folder:
        home = open_home(Path(folder))
        home.open_stream("s", StreamRecord(policy_digest=POLICY, anchor="", max_participations=4))
        cost = StepCost(
            mu_squared=0.01, max_participations=4, mu_squared_limit=0.04, mu_squared_in_all=0.05
        )
        for index in range(2):
            home.invite("s", index, device_ids=DEVICES, choose=lambda _: [1, 2, 3], cost=cost)
            home.commit("s", index, digest="ab" * 32, noise_only=False)
            step = CorrelatedRelease(
                stream="s",
                index=index,
                noise_multiplier=10.0,
                clipping_norm=0.3,
                cohort_size=3,
                bands=1,
                min_separation=1,
                most_participations=index + 1,
                policy_digest=POLICY,
            )
            home.charge(step, kind="stream", at=NOW)
        answer = AnswerCost(mu_squared=1 / 99, mu_squared_limit=0.02, mu_squared_in_all=0.05)
        home.count_answers(f"{POLICY} drift", 0, DEVICES[1:3], cost=answer)
        count = CountRelease(
            channel="drift",
            index=0,
            noise_multiplier=10.0,
            sensitivity=1.0,
            cohort_size=2,
            most_answers=1,
            policy_digest=POLICY,
        )
        home.charge(count, kind="stream", at=NOW)
        for name in ("participations.db", "home.json", "ledger.jsonl"):
            shutil.copyfile(Path(folder) / name, target / name)


if __name__ == "__main__":
    main()
