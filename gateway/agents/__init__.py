"""Agents and their pools: who gets which worker, when one is started, and when to give up."""
