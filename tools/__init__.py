"""Tools for those who work on comfygate; the gate itself does not need them."""
