"""Where hints come from."""
