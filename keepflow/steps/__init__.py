"""One file per step kind of script jobs; the file name is the YAML key."""
