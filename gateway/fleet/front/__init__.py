"""Hosts as a front sees them: which one gets a request, and what becomes of it there."""
