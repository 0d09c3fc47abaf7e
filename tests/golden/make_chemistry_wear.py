"""Make chemistry_wear.json: capacity of cells, and resistance, as BLAST-Lite computes them.

BLAST-Lite (NREL, BSD-3) is an independent implementation of the laws of NMC111, NCA and the 50 Ah
NMC cell; of the law of LFP that we use it has none. It needs numpy < 2 and modules that it never
uses here, so it runs in an environment of its own:

    python3.11 -m venv build/blast
    build/blast/bin/pip install "numpy<2" pandas scipy && \
        build/blast/bin/pip install --no-deps BLAST-Lite==1.1.1
    build/blast/bin/python tests/golden/make_chemistry_wear.py

The day: state of charge falls from 95 % at midnight to 35 % at noon and rises again; the device
spends a share of its capacity (`is_conserve_energy_throughput=False`). Temperature follows
season and hour without weather. Samples are ten minutes apart.
"""

import json
import sys
import types
from pathlib import Path

import numpy as np

for _name in ("h5pyd", "geopy", "geopy.geocoders", "matplotlib", "matplotlib.pyplot"):
    sys.modules[_name] = types.ModuleType(_name)
sys.modules["geopy.geocoders"].Nominatim = object
sys.modules["matplotlib"].pyplot = sys.modules["matplotlib.pyplot"]

from blast.models import (  # noqa: E402 - after the stand-ins
    Nca_Gr_Panasonic3Ah_Battery,
    Nmc111_Gr_Sanyo2Ah_Battery,
    NMC_Gr_50Ah_B1,
)

TARGET = Path(__file__).with_name("chemistry_wear.json")
CELLS = {
    "NMC111": Nmc111_Gr_Sanyo2Ah_Battery,
    "NCA": Nca_Gr_Panasonic3Ah_Battery,
    "NMC-50Ah-B1": NMC_Gr_50Ah_B1,
}
SAMPLES_A_DAY = 144
DAYS = (180, 365, 728)
# mean, half the seasonal range, half the daily range, warmest day of the year
CLIMATES = {
    "temperate": (11.5, 7.0, 4.0, 200),
    "continental": (10.5, 13.5, 5.0, 201),
    "cold": (3.5, 13.0, 4.0, 199),
    "hot-arid": (26.5, 10.5, 7.0, 205),
    "tropical": (27.8, 0.9, 3.5, 140),
}


def wear_of(kind, *, mean_c, seasonal_c, daily_c, warmest_day):
    """Return q, and r where the cell has one, at the end of each of `DAYS`."""
    time_days = np.arange((max(DAYS) + 17) * SAMPLES_A_DAY) / SAMPLES_A_DAY
    hour = 24.0 * (time_days % 1.0)
    temperature = (
        mean_c
        + seasonal_c * np.cos(2 * np.pi * (np.floor(time_days) - warmest_day) / 365.25)
        + daily_c * np.cos(2 * np.pi * (hour - 15.0) / 24.0)
    )
    charge = 0.35 + 0.6 * np.abs(hour - 12.0) / 12.0
    cell = kind()
    cell.simulate_battery_life(
        {"Time_s": 86_400.0 * time_days, "SOC": charge, "Temperature_C": temperature},
        is_conserve_energy_throughput=False,
    )
    at = cell.stressors["t_days"]
    names = [name for name in ("q", "r") if name in cell.outputs]
    return {name: np.round(np.interp(DAYS, at, cell.outputs[name]), 5).tolist() for name in names}


def main():
    """Write the file."""
    golden = {"days": list(DAYS), "climates": {}, "wear": {}}
    for name, (mean_c, seasonal_c, daily_c, warmest_day) in CLIMATES.items():
        golden["climates"][name] = {
            "mean_c": mean_c,
            "seasonal_c": seasonal_c,
            "daily_c": daily_c,
            "warmest_day": warmest_day,
        }
    for chemistry, kind in CELLS.items():
        golden["wear"][chemistry] = {
            name: wear_of(kind, **stress) for name, stress in golden["climates"].items()
        }
    TARGET.write_text(json.dumps(golden, indent=2) + "\n")


if __name__ == "__main__":
    main()
