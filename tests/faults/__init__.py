"""ComfyUI, the gate and the database are killed and started again: what every job comes to then. `python -m tests.faults` does many rounds."""
