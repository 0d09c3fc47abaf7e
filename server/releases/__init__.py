"""Models released in rings: proposed, signed offline, offered ring by ring, stopped, taken back."""
