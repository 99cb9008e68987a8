"""Transfer logs: reading a line, following a file, matching with arrivals."""
