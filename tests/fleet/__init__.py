"""Fronts and hosts: with NATS in memory, and with a real nats-server."""
