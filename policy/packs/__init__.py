"""Routes of known packs of custom nodes, one file for each: what proxy/config/packs.py reads, and `[upstream] packs` opens."""
