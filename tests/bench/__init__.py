"""Benches: keepflow and the bare minimum, measured in turn on the same machine."""
