"""The gateway: HTTP in front, untrusted worker processes behind."""
