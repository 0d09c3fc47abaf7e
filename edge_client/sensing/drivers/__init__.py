"""Sensors: where a device's readings come from. Each has `read(now)` of `edge_client.sensors`."""
