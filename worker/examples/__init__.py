"""Agents to read, to run and to start from. Each says at its top how to serve it."""
