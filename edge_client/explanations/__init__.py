"""One prediction, told to its owner, to support and for compliance."""
