"""What the gate believes of ComfyUI's API, checked against the stand-in and, with COMFYUI_URL set, against a real one."""
