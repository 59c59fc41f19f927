"""Measures what README.md promises, side by side with what people would use instead."""
