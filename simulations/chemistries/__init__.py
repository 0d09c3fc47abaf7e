"""Laws of wear, one file a chemistry, each equation with its source."""

import numpy as np

from .law import KELVIN, Law, Rates, Stress, mean_of_samples
from .lfp import Lfp
from .mixed import MixedLaw
from .nca import Nca
from .nmc111 import Nmc111
from .nmc_50ah_b1 import Nmc50AhB1

__all__ = [
    "KELVIN",
    "LAWS",
    "Law",
    "MixedLaw",
    "Rates",
    "Stress",
    "law_of",
    "mean_of_samples",
]

LAWS: dict[str, Law] = {law.name: law for law in (Nmc111(), Nca(), Nmc50AhB1(), Lfp())}
"""By the name that device profiles give the chemistry."""


def law_of(chemistries: list[str]) -> Law:
    """Return the law of devices whose cells are of these chemistries, one name a device."""
    names = sorted(set(chemistries))
    if len(names) == 1:
        return LAWS[names[0]]
    number = {name: position for position, name in enumerate(names)}
    of_device = np.array([number[name] for name in chemistries], np.intp)
    return MixedLaw([LAWS[name] for name in names], of_device)
