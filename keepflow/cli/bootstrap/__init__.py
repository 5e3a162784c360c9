"""`keepflow agent bootstrap`: another host is made an agent over SSH, from what this very keepflow is."""
