"""The agents that the benchmarks run, each started as a command."""
