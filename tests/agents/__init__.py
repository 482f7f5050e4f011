"""Agents that misbehave, one fault each, in plain Python. They are run as commands, never imported.

The subject of each file's docstring is the agent.
"""
