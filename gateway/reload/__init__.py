"""Changing while running: the configuration is read again, and what differs is carried out."""

from gateway.reload.compare import differences
from gateway.reload.reloader import Part, Reloader

__all__ = ["Part", "Reloader", "differences"]
