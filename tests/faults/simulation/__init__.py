"""A gate's dispatcher in a world without real time: whoever sleeps is woken at once, in order, and every run follows from its seed."""
