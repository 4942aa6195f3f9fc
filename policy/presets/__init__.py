"""Presets as data: one TOML file each, lists of classes with a comment for each group. proxy/presets.py reads them."""
