"""The privacy home: the ledger of releases, and what every device has spent in its life."""
