"""One worker: its process, its pipes, its wire, and what is left when it has ended."""
