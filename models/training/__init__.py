"""Training of the battery network (torch)."""
