"""A pack of custom nodes with a route of every kind: in the stand-in, and in a real ComfyUI when `comfyui` is linked into its custom_nodes."""
