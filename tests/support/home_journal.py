"""What left a privacy home, written by a test alone, and what it cost by an oracle of its own."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import mpmath

from privacy import CountChannel, RecordPolicy, StreamPolicy, policy_for
from server.privacy_home.participation_counts import UNLIMITED
from tests.support.random_schedules import DELTA, explicit_norm_squared

if TYPE_CHECKING:
    import random
    from collections.abc import Sequence

    from server.privacy_home.privacy_ledger import PrivacyHome


@dataclass(slots=True, kw_only=True)
class Asked:
    """Who was asked for something, and whether anything of it was released.

    Attributes:
        devices: that were asked.
        policy: under which.
        sigma: σ of a count; None for a step.
        index: of the step, or of the release of counts.
        stream: of the step; empty for a count.
        released: whether the sum left, with noise.
    """

    devices: tuple[str, ...]
    policy: StreamPolicy
    index: int
    sigma: float | None = None
    stream: str = ""
    released: bool = False


@dataclass(slots=True)
class Journal:
    """Who was asked for what, and what left.

    Attributes:
        asked: oldest first.
    """

    asked: list[Asked] = field(default_factory=list)

    def spent(self, device: str, *, released: bool) -> mpmath.mpf:
        """μ² of a device by the explicit factors, in exact arithmetic.

        Args:
            device: whose.
            released: what left alone, the counts at no more than a Gaussian's cost; else all that
                it was asked for, each count at its bound.
        """
        total = mpmath.mpf(0)
        steps: dict[str, list[Asked]] = {}
        for one in self.asked:
            if device not in one.devices or (released and not one.released):
                continue
            if one.sigma is None:
                steps.setdefault(one.stream, []).append(one)
            else:
                total += 1 / (mpmath.mpf(one.sigma) ** 2 - (0 if released else 1))
        for taken in steps.values():
            privacy, at = taken[0].policy.privacy, [one.index for one in taken]
            norm = explicit_norm_squared(at, bands=privacy.bands, length=max(at) + privacy.bands)
            total += norm / mpmath.mpf(privacy.noise_multiplier) ** 2
        return total

    def require_known(self, home: PrivacyHome, devices: Sequence[str]) -> None:
        """Fail where a home counts less for a device than what left, or forgot a promise to it."""
        found = home.life_counts(devices)
        counted = (found.mu_squared + found.counts_mu_squared).tolist()
        for place, device in enumerate(devices):
            spent = self.spent(device, released=True)
            assert counted[place] >= spent * (1 - mpmath.mpf(10) ** -12), "a device's count is low"
            self._require_promises(device)
            for one in self.asked:
                if one.released and device in one.devices:
                    privacy = one.policy.privacy
                    in_all = float(found.mu_squared_in_all[place])
                    assert in_all <= privacy.mu_squared_in_all * (1 + 1e-9), "a limit is forgotten"
                    most = UNLIMITED if one.sigma else privacy.max_participations
                    assert found.max_participations[place] <= most, "a device's k is forgotten"

    def _require_promises(self, device: str) -> None:
        taken = [one for one in self.asked if device in one.devices and one.released]
        if not taken:
            return
        steps = [one for one in taken if one.sigma is None]
        most = min((one.policy.privacy.max_participations for one in steps), default=0)
        assert len(steps) <= most or not steps, "a device took part more often than was promised"
        limit = min(one.policy.privacy.mu_squared_in_all for one in taken)
        assert self.spent(device, released=True) <= limit * (1 + 1e-9), "a promise was passed"


def random_policy(stream: str, chance: random.Random) -> StreamPolicy:
    """Return a policy with a few participations, and channels that spend all the rest."""
    separation = chance.randint(1, 3)
    privacy = policy_for(
        epsilon=chance.choice([1.0, 2.0, 8.0]),
        delta=DELTA,
        max_participations=chance.choice([1, 2, 4]),
        clipping_norm=1.0,
        min_separation=separation,
        min_cohort_size=2,
        update_share=chance.choice([0.6, 0.85]),
        bands=chance.randint(1, separation),
    )
    channels = tuple(
        CountChannel(
            name=name,
            noise_multiplier=(answers / share + 1.0) ** 0.5 * 1.0001,
            max_answers=answers,
            held_out=out,
        )
        for name, out, share in (
            ("drift", False, privacy.mu_squared_for_counts),
            ("metrics", True, privacy.mu_squared_in_all),
        )
        for answers in (chance.randint(1, 3),)
    )
    return StreamPolicy(
        stream=stream,
        num_rounds=chance.randint(2, 8),
        cohort_size=2,
        privacy=privacy,
        record=RecordPolicy(
            noise_multiplier=1.0, max_grad_norm=1.0, sampling_rate=0.1, steps=1, least_rows=180
        ),
        channels=channels,
    )
