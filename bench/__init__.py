"""Measurements: each module prints figures, and fails where a promise is broken. `make bench` runs them all."""
