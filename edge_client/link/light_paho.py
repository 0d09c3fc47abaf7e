"""Load paho without what a plain connection never uses: 4 MB of a device's memory."""

from __future__ import annotations

import sys
from importlib import import_module
from importlib.util import find_spec
from types import ModuleType

FOR_PROXIES = ("urllib.parse", "urllib.request")


def load_paho(*, speaks_tls: bool = False) -> None:
    """Load paho's client without `ssl` and what finds proxies, and leave all as they were.

    paho imports `urllib.request`, and with it `http.client` and `email`, to find a SOCKS proxy by
    PySocks; `ssl` to speak TLS, and with it OpenSSL a second time beside the one inside
    `cryptography`. Where PySocks is installed, or paho or `ssl` are loaded already, nothing is
    spared. What this process imports by itself later is the real module.

    Args:
        speaks_tls: whether it needs `ssl`.
    """
    if "paho.mqtt.client" in sys.modules or find_spec("socks") is not None:
        return
    without_tls = {} if speaks_tls else {"ssl": None}
    stand_ins = without_tls | {name: ModuleType(name) for name in FOR_PROXIES}
    hidden = {name: module for name, module in stand_ins.items() if name not in sys.modules}
    sys.modules.update(hidden)  # type: ignore[arg-type]
    try:
        import_module("paho.mqtt.client")
    finally:
        for name in hidden:
            del sys.modules[name]
