"""Measures what docs/performance.md promises, side by side with what people would use instead."""
