"""Rounds of a device behind a gateway: offered over MQTT, answered once, sealed to the gateway.

`fedcell-device run` loads this where its settings turn rounds on, and nothing of it elsewhere.
"""
