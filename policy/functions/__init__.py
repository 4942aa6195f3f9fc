"""Functions: workflows with named arguments, as the operator writes them down. No code in them."""
