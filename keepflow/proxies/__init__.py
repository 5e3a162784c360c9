"""Who sends traffic to the slot."""
