"""The worker SDK."""
