"""Files turned into typed objects, with every error at its line and column."""
