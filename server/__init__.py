"""One server process: rounds, registry, and notices over MQTT."""
