"""Tests on real parts: engines, a second host, a registry, nginx and a database, all on this machine."""
