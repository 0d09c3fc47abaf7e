"""Differential privacy for the fleet: clipping, noise, accounting, ledger and policy.

The unit of privacy is one device: all that it sends in the releases that are composed, a stream or
several. Two worlds are neighbours when they differ in one device's contributions, replaced by zero,
and the cohort's size is public. Record-level DP-SGD on a device (`privacy.dp_sgd`,
`privacy.record_accountant`) is a second, weaker statement, never merged with the first. Both heavy
modules are imported by whoever needs them, never from here.
"""

from .accountant import gaussian_delta, gaussian_epsilon, noise_multiplier_for, release_epsilon
from .clipping import UpdateGrid, clip_update
from .errors import (
    BudgetExceededError,
    LedgerBrokenError,
    NoiseReuseError,
    PrivacyError,
    UnsupportedEventError,
)
from .events import (
    CorrelatedRelease,
    CountAnswer,
    CountRelease,
    EntryKind,
    Event,
    GaussianRelease,
    Participation,
    PublicData,
    RecordLevelSteps,
)
from .ledger import LedgerEntry, events_of, next_entry, read_ledger, verify_ledger
from .noise import (
    IndependentGaussian,
    NoiseSource,
    OperatingSystemNoise,
    ReleaseNoise,
    WithoutNoise,
)
from .policy import CountChannel, PrivacyPolicy, RecordPolicy, StreamPolicy, policy_for

__all__ = [
    "BudgetExceededError",
    "CorrelatedRelease",
    "CountAnswer",
    "CountChannel",
    "CountRelease",
    "EntryKind",
    "Event",
    "GaussianRelease",
    "IndependentGaussian",
    "LedgerBrokenError",
    "LedgerEntry",
    "NoiseReuseError",
    "NoiseSource",
    "OperatingSystemNoise",
    "Participation",
    "PrivacyError",
    "PrivacyPolicy",
    "PublicData",
    "RecordLevelSteps",
    "RecordPolicy",
    "ReleaseNoise",
    "StreamPolicy",
    "UnsupportedEventError",
    "UpdateGrid",
    "WithoutNoise",
    "clip_update",
    "events_of",
    "gaussian_delta",
    "gaussian_epsilon",
    "next_entry",
    "noise_multiplier_for",
    "policy_for",
    "read_ledger",
    "release_epsilon",
    "verify_ledger",
]
