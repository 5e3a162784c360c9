"""Signed envelopes, keys, and sealing at rest."""
