"""The agents that the benchmarks run. Each is started as a command; it is the subject of its file's
docstring.
"""
