"""One file per forge: verify and parse a webhook, tell a commit's status."""
