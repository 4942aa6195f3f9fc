"""I/O around the pure policy: authenticate, limit, read, send, relay, record."""
