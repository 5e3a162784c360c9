"""The one argv runner, the git wrapper, the registry client."""
