"""The nouns of the OCI specifications, parsed and immutable. Touches no file, no clock, no process."""
