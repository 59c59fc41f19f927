"""Reads the images tree. Writes nothing, starts nothing, knows nothing of nginx."""
