"""Presets as data: one TOML file each, lists of classes with a comment for each group. proxy/config/presets.py reads them."""
