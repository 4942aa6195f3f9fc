"""What the gate remembers over a restart. Trusts the machine's own disk, and looks whether a file is whole before it believes it."""
