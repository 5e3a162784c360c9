"""Versioned messages between master and agents, orders, and API models."""
