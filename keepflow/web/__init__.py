"""The people-facing side of the master: pages, REST API, login."""
