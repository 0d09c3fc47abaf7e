"""New models: fetched, looked through, run once aside, and put on trial in two slots."""
