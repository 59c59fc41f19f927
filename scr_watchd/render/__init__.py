"""Turns a Catalog into the text that nginx reads. Pure: no file, no clock, no process."""
