"""Pulls with real container clients from real servers."""
