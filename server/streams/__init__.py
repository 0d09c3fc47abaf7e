"""One stream of releases: its constants and key, and its steps, each durable."""
