"""What a caller may do: pure decisions, values in, values out."""
