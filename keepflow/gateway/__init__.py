"""The machine-facing side of the master: hooks, agents, git, live streams."""
