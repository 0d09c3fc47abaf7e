"""The names that other packages may rely on; removing one is a breaking change."""

import privacy


def test_public_names_are_these():
    assert sorted(privacy.__all__) == [
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


def test_every_public_name_is_there():
    assert all(hasattr(privacy, name) for name in privacy.__all__)
