"""Histories: what happens to a tree, to a daemon and around them, one event after the other, and what is
served then. ``play`` plays one; a failing one is printed as a test to paste."""
