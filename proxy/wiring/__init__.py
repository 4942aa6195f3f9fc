"""Makes what lives as long as the gate, and gives each part what it needs. Decides nothing."""
