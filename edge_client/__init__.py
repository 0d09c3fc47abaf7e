"""One device process: store, prediction, notices, and private local training."""
