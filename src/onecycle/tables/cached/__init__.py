"""Tables larger than memory: prepared on the disk, once."""
