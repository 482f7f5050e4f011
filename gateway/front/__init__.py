"""HTTP: connections, requests and what each client protocol makes of them.

A request's bytes become a `Call`, and an exchange's answer becomes bytes. What happens between the
two is the business of `agents`. `dialect` is where to start for adding a client protocol; each one
is a package here, of which `native` is the first.
"""
