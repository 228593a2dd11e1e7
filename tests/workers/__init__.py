"""Several processes on one set of listeners."""
