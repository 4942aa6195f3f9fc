"""One pure function per rule of the route table."""
