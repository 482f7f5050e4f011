"""Agents that misbehave, one fault each, in plain Python: run as commands, not imported."""
