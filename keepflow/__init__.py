"""keepflow: from git push to production on machines you own."""

__version__ = "0.1.0"
