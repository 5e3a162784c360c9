"""The API's answers, built from the store; pages show the very same."""
