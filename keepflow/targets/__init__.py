"""Where a release serves."""
