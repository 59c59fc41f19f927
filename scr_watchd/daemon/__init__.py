"""Decides when: wakes, makes a pass, reports. Introduces images, render and publish to each other."""
