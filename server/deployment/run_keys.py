"""The keys of a deployed run, their defaults, and how an operator says them. No IO.

They stand in the app bundle too, where Flower takes no key that it does not find, and in
`[tool.flwr.app.config]` of pyproject.toml for `flwr run` in a clone; a test keeps both in step.
`server.deployed_run.deployed_run` says what each means.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Final

from ..errors import SettingError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

RunValue = str | int | float

RUN_KEYS: Final[Mapping[str, RunValue]] = {
    "out": "",
    "start-weights": "",
    "policy-key": "",
    "privacy-home": "",
    "stream-key-file": "",
    "owners": "",
    "enrolment": "",
    "least-nodes": 1,
    "plan": "",
    "rounds": 24,
    "cohort": 2000,
    "replies": 0,
    "dropout": 0.0,
    "min-replies": 1,
    "epsilon": 2.0,
    "delta": 1e-8,
    "update-share": 0.85,
    "count-years": 2.0,
    "max-participations": 0,
    "max-devices-per-owner": 5,
    "clipping-norm": 0.3,
    "clipping-quantile": 0.0,
    "local-steps": 2,
    "sampling-rate": 0.5,
    "batch-size": 160,
    "local-rate": 0.1,
    "record-noise": 2.0,
    "proximal": 0.0,
    "optimizer": "",
    "server-rate": 0.0,
    "reference": "",
    "evaluate-every": 1,
    "patience": 0,
    "log-level": "",
    "deadline-s": 600.0,
    "round-every-s": 0.0,
    "model-version": "",
    "drift-reference": "",
    "similar-devices": 0,
    "metrics-every": 0,
    "metrics-port": 0,
    "resume": 0,
}
FILES: Final = (
    "out",
    "start-weights",
    "policy-key",
    "privacy-home",
    "stream-key-file",
    "owners",
    "enrolment",
    "plan",
    "reference",
    "drift-reference",
)
"""Keys that name files or folders: a run's process has another working directory."""
_DEFAULT_WEIGHTS = "default"


def read_said(words: Iterable[str], *, where: Path) -> dict[str, RunValue]:
    """Return what an operator said of a run.

    Args:
        words: `key=value` each.
        where: folder that relative paths start from, absolute.

    Raises:
        SettingError: a word is none, a key is unknown or said twice, or a value is no number where
            one is wanted.
    """
    said: dict[str, RunValue] = {}
    for word in words:
        key, equals, text = word.partition("=")
        if not equals:
            raise SettingError(word, "is no key=value", "write it like rounds=24")
        if key not in RUN_KEYS:
            raise SettingError(key, "is no key of a run", f"known are {', '.join(RUN_KEYS)}")
        if key in said:
            raise SettingError(key, "is said twice", "say it once")
        said[key] = _value(key, text, where=where)
    return said


def whole(said: Mapping[str, RunValue]) -> dict[str, RunValue]:
    """Return a run's configuration as its process will see it: what was said, and the defaults."""
    return {**RUN_KEYS, **said}


def _value(key: str, text: str, *, where: Path) -> RunValue:
    default = RUN_KEYS[key]
    if isinstance(default, str):
        is_path = (
            key in FILES and text and not (key == "start-weights" and text == _DEFAULT_WEIGHTS)
        )
        return str(where / Path(text).expanduser()) if is_path else text
    try:
        number = int(text) if isinstance(default, int) else float(text)
    except ValueError:
        number = math.nan
    if not math.isfinite(number):
        kind = "a whole number" if isinstance(default, int) else "a number"
        raise SettingError(key, f"must be {kind}, got {text!r}", f"write it like {key}={default}")
    return number
