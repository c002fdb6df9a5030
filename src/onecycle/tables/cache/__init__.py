"""Tables larger than memory, converted once to files on the disk."""
