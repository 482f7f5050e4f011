"""A2A's conformance kit (github.com/a2aproject/a2a-tck, branch `1.0-dev`) against a gateway.

The kit is no package of any index, so that CI does not have it; the README of the dialect says how
it is run by hand, and what came of it.
"""
