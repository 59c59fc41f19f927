"""Tests with the real thing: real nginx, real files, real clients."""
