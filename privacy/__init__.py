"""Differential privacy for the fleet: clipping, noise, accounting, ledger and policy.

The unit of privacy is one device: all that it sends in the releases that are composed, a stream or
several. Two worlds are neighbours when they differ in one device's contributions, replaced by zero,
and the cohort's size is public. Record-level DP-SGD on a device (`privacy.dp_sgd`,
`privacy.record_accountant`) is a second, weaker statement, never merged with the first. Both heavy
modules are imported by whoever needs them, never from here.
"""

from .accountant import gaussian_delta, gaussian_epsilon, noise_multiplier_for, release_epsilon
from .budget import PrivacyPolicy, policy_for
from .clipping import UpdateGrid, clip_update
from .errors import (
    BudgetExceededError,
    LedgerBrokenError,
    NoiseReuseError,
    PrivacyError,
    UnsupportedEventError,
)
from .events import EntryKind, Event, GaussianRelease, PublicData, RecordLevelSteps
from .ledger import LedgerEntry, events_of, next_entry, read_ledger, verify_ledger
from .noise import (
    IndependentGaussian,
    NoiseSource,
    OperatingSystemNoise,
    ReleaseNoise,
    WithoutNoise,
)

__all__ = [
    "BudgetExceededError",
    "EntryKind",
    "Event",
    "GaussianRelease",
    "IndependentGaussian",
    "LedgerBrokenError",
    "LedgerEntry",
    "NoiseReuseError",
    "NoiseSource",
    "OperatingSystemNoise",
    "PrivacyError",
    "PrivacyPolicy",
    "PublicData",
    "RecordLevelSteps",
    "ReleaseNoise",
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
