"""Metrics for Prometheus: plain values that each room keeps, and their way to a scrape.

# Theory of operation

Whatever is counted is a plain value of whoever it belongs to: an agent's supervisor counts the ends
of its workers, the log its dropped lines, `requests` what was observed of requests. Nobody who
counts knows Prometheus. At a scrape, `exposition` takes all values in one turn of the event loop,
as `readings`: one moment, so that sums agree. Then a thread makes the families of them (`families`)
and the text, with prometheus_client. So counting costs the requests an addition, and no lock.

**Labels are bounded.** Each is the name of an agent, a service or a key that is configured, or a
word of a closed set: a dialect, a handler, a status, a type of error, a state. What belongs to an
agent is only ever shown for the agents of this moment; what was counted of requests to others is
dropped at the next scrape. So nobody has to tell the metrics that an agent was removed.

Nothing here is imported unless `[server] metrics` is on, but for `readings` and `distribution`,
which know nothing but numbers.
"""
