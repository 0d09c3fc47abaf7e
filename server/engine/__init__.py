"""The round engine: whom it asks, what it takes, how it ends, and what may be proposed."""
