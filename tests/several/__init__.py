"""Several ComfyUIs behind one gate."""
