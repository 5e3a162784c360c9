"""The tests: they mirror the package; `real/` needs real parts."""
