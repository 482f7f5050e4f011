"""A host: the agents of this process, called by fronts. See ../README.md."""
