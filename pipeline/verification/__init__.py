"""The checks of verify, one module a kind."""
