"""What a run leaves and obeys: record, status, log, metrics, requests of operators, and words."""
