"""Agents that are written with frameworks, each in a file of its own; the README is beside them."""
