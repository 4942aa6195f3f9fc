"""Limits: what a caller may use up, counted in memory or in Redis. Trusts principals; believes nothing that a client says about itself."""
