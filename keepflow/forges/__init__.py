"""One file per forge: verify and parse a webhook."""
