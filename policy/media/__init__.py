"""What ComfyUI writes of a workflow into the files that it makes: where it stands in each format, and what takes its place."""
