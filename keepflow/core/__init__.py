"""What things are and how they may change; pure, standard library only."""
