"""The daemon that executes: link, journal, policy, worker, deployer."""
