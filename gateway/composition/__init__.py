"""Where the rooms are put together: what starts, changes while it runs, and ends.

`server` is the composition, `roster` the agents that are in force, with what `launchers` makes for
them. `reload/` compares a new configuration with the old one and changes what differs;
`shutdown` obeys signals. `observers` are told of requests, `notify` tells a service manager, and
`check` is `gateway --check`.
"""
