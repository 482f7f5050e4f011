"""HTTP: connections, requests and what each dialect makes of them.

A request's bytes become a `Call`, and an exchange's answer becomes bytes. What happens between the
two is the business of `agents`.
"""
