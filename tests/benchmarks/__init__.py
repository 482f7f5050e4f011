"""Benchmarks: what the gateway costs, beside references measured in the same run.

    python -m tests.benchmarks [--quick] [--only NAME ...] [--peers] [--json FILE] [--plots DIR]

Every server is started here, on the loopback. Rounds are interleaved: in each round every server
does the same work once, so that other load on the machine affects all of them alike. A figure is a
median with its minimum and maximum; a ratio is the median of the rounds' ratios to the reference.
Only ratios can be compared between runs. README.md has the results and how to read them.
"""
