"""Things with no other home: errors, paths, devices, the record of a run, the library's own models."""
