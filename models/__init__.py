"""Contracts between device and server at the root, training below."""
