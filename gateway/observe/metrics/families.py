"""From readings to metric families, as prometheus_client writes them: their names, help and labels.

Names follow Prometheus' conventions (https://prometheus.io/docs/practices/naming/): base units, a
unit as suffix, `_total` for counters. The README of this package has them in a table.
"""

from __future__ import annotations

from itertools import accumulate
from typing import TYPE_CHECKING, TypeAlias

from prometheus_client.metrics_core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    InfoMetricFamily,
)
from prometheus_client.utils import floatToGoString

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from prometheus_client.metrics_core import Metric

    from gateway.observe.metrics.distribution import Distribution
    from gateway.observe.metrics.readings import (
        AgentReading,
        ConnectionsReading,
        FleetReading,
        HostReading,
        Readings,
        RunsReading,
        TrafficReading,
    )
    from gateway.observe.metrics.requests import CallLabels, Sums

    Labels: TypeAlias = tuple[str, ...]

_CALL = ("agent", "dialect", "handler")


def families(now: Readings, version: str) -> Iterator[Metric]:
    """Every metric of the gateway's own. `version` is the gateway's."""
    yield InfoMetricFamily("gateway", "The gateway's version.", value={"version": version})
    yield from _of_requests(now.requests)
    yield _counter(
        "gateway_key_requests",
        "Requests by the name of the caller's key.",
        ("key", "status"),
        (
            ((key, str(status)), count)
            for key, counts in now.keys.items()
            for status, count in counts.items()
        ),
    )
    yield from _of_runs(now.requests, now.runs)
    yield from _of_agents(now.agents, now.streams)
    yield from _of_workers(now.agents, now.memory)
    yield from _of_services(now.agents)
    yield from _of_networks(now.agents)
    yield from _of_connections(now.connections)
    if now.fleet is not None:
        yield from _of_fleet(now.fleet)
    yield _counter(
        "gateway_log_lines_dropped",
        "Lines of the log that were lost, because stderr did not take them.",
        (),
        [((), now.log_dropped)],
    )
    yield _histogram(
        "gateway_event_loop_delay_seconds",
        "How late the event loop was when a timer was due, looked at four times a second.",
        (),
        [((), now.loop_delay)],
    )


def _of_requests(requests: Mapping[CallLabels, Sums]) -> Iterator[Metric]:
    yield _counter(
        "gateway_requests",
        "Requests that have ended, by the status of their responses (499: the client left before) "
        "and the type of the error, if any.",
        (*_CALL, "status", "type"),
        (
            ((*labels, str(status), error), count)
            for labels, sums in requests.items()
            for (status, error), count in sums.outcomes.items()
        ),
    )
    yield _histogram(
        "gateway_request_duration_seconds",
        "From a request's head to the end of its response.",
        _CALL,
        ((labels, sums.duration) for labels, sums in requests.items() if sums.outcomes),
    )
    yield _counter(
        "gateway_requests_abandoned",
        "Requests whose clients left before the ends of their responses.",
        _CALL,
        ((labels, sums.abandoned) for labels, sums in requests.items()),
    )
    yield _counter(
        "gateway_request_received_bytes",
        "Bytes of requests' bodies.",
        _CALL,
        ((labels, sums.received) for labels, sums in requests.items()),
    )
    yield _counter(
        "gateway_request_sent_bytes",
        "Bytes of responses' bodies.",
        _CALL,
        ((labels, sums.sent) for labels, sums in requests.items()),
    )
    calls = {labels: sums for labels, sums in requests.items() if labels.agent and labels.handler}
    yield _histogram(
        "gateway_request_queue_seconds",
        "From a request's admission to its being given to a worker.",
        _CALL,
        ((labels, sums.queue) for labels, sums in calls.items()),
    )
    yield _histogram(
        "gateway_request_first_word_seconds",
        "From a request's head to the first word of its answer.",
        _CALL,
        ((labels, sums.first_word) for labels, sums in calls.items()),
    )
    yield _counter(
        "gateway_request_chunks",
        "Chunks and events that workers have said before the ends of their answers.",
        _CALL,
        ((labels, sums.chunks) for labels, sums in calls.items()),
    )


def _of_runs(requests: Mapping[CallLabels, Sums], runs: RunsReading) -> Iterator[Metric]:
    yield _counter(
        "gateway_runs_ended",
        "Runs (requests that do not need their clients) that have ended, by the type of the error.",
        (*_CALL, "type"),
        (
            ((*labels, error), count)
            for labels, sums in requests.items()
            for error, count in sums.run_outcomes.items()
        ),
    )
    yield _histogram(
        "gateway_run_duration_seconds",
        "From a run's admission to its end.",
        _CALL,
        ((labels, sums.run_duration) for labels, sums in requests.items() if sums.run_outcomes),
    )
    yield _gauge(
        "gateway_runs",
        "Runs that go on, and runs that have ended and are kept.",
        ("state",),
        [(("going_on",), runs.going_on), (("kept",), runs.kept)],
    )
    yield _gauge(
        "gateway_runs_kept_bytes", "What runs keep of their answers.", (), [((), runs.size)]
    )


def _of_agents(agents: list[AgentReading], streams: Mapping[str, int]) -> Iterator[Metric]:
    yield _gauge(
        "gateway_agent_state",
        "1 for the state that an agent is in, 0 for all others.",
        ("agent", "state"),
        (
            ((agent.name, state), int(holds))
            for agent in agents
            for state, holds in agent.states.items()
        ),
    )
    yield _gauge(
        "gateway_agent_waiting_requests",
        "Requests that wait for a worker.",
        ("agent",),
        (((agent.name,), agent.waiting) for agent in agents),
    )
    yield _gauge(
        "gateway_agent_waiting_requests_limit",
        "How many requests may wait (queue).",
        ("agent",),
        (((agent.name,), agent.queue) for agent in agents),
    )
    yield _gauge(
        "gateway_agent_running_requests",
        "Requests that workers have.",
        ("agent",),
        (((agent.name,), agent.in_flight) for agent in agents),
    )
    yield _gauge(
        "gateway_agent_open_streams",
        "Streams whose clients have not had their ends.",
        ("agent",),
        (((agent.name,), streams.get(agent.name, 0)) for agent in agents),
    )


def _of_workers(agents: list[AgentReading], memory: Mapping[str, int]) -> Iterator[Metric]:
    yield _gauge(
        "gateway_workers",
        "Workers by what they do.",
        ("agent", "state"),
        (
            ((agent.name, state), count)
            for agent in agents
            for state, count in agent.workers.items()
        ),
    )
    yield _gauge(
        "gateway_workers_limit",
        "How many workers there may be (workers.max).",
        ("agent",),
        (((agent.name,), agent.max_workers) for agent in agents),
    )
    yield _gauge(
        "gateway_worker_memory_bytes",
        "Resident bytes of all workers of an agent with their descendants; what several processes "
        "share counts for each.",
        ("agent",),
        (((agent.name,), memory.get(agent.name, 0)) for agent in agents),
    )
    yield _counter(
        "gateway_worker_starts",
        "Workers that were started.",
        ("agent",),
        (((agent.name,), agent.starts) for agent in agents),
    )
    yield _counter(
        "gateway_worker_ends",
        "Workers that have ended, by reason; asked is every end in order.",
        ("agent", "reason"),
        (((agent.name, reason), n) for agent in agents for reason, n in agent.ends.items()),
    )
    yield _histogram(
        "gateway_worker_start_seconds",
        "From the start of a worker to its ready, or its first line.",
        ("agent",),
        (((agent.name,), agent.start_seconds) for agent in agents),
    )


def _of_services(agents: list[AgentReading]) -> Iterator[Metric]:
    used: dict[Labels, TrafficReading] = {
        (agent.name, service): traffic
        for agent in agents
        for service, traffic in agent.services.items()
    }
    own = ("agent", "service")
    yield _counter(
        "gateway_service_requests",
        "Requests of agents to services: allowed, refused by their rules, or failed.",
        (*own, "outcome"),
        _requests_of(used),
    )
    yield _counter(
        "gateway_service_seconds",
        "Time that requests to services took, all together.",
        own,
        ((labels, traffic.seconds) for labels, traffic in used.items()),
    )
    yield _counter(
        "gateway_service_bytes",
        "Bytes of bodies to and from services.",
        (*own, "direction"),
        _bytes_of(used),
    )
    yield _counter(
        "gateway_service_tokens",
        "Tokens of models, as services have counted them.",
        (*own, "direction"),
        (
            ((*labels, direction), count)
            for labels, traffic in used.items()
            for direction, count in traffic.tokens.items()
        ),
    )
    limited = {labels: each for labels, each in used.items() if each.tokens_per_day is not None}
    yield _gauge(
        "gateway_service_budget_tokens",
        "How many tokens a day an agent may use of a service (tokens_per_day).",
        own,
        ((labels, traffic.tokens_per_day or 0) for labels, traffic in limited.items()),
    )
    yield _gauge(
        "gateway_service_budget_spent_tokens",
        "How many of these were used since midnight UTC.",
        own,
        ((labels, traffic.tokens_today) for labels, traffic in limited.items()),
    )


def _of_networks(agents: list[AgentReading]) -> Iterator[Metric]:
    used: dict[Labels, TrafficReading] = {(agent.name,): agent.network for agent in agents}
    yield _counter(
        "gateway_network_connections",
        "Connections of agents to hosts of sandbox.network: allowed, refused or failed.",
        ("agent", "outcome"),
        _requests_of(used),
    )
    yield _counter(
        "gateway_network_bytes",
        "Bytes through these connections.",
        ("agent", "direction"),
        _bytes_of(used),
    )


def _requests_of(used: Mapping[Labels, TrafficReading]) -> Iterator[tuple[Labels, float]]:
    for labels, traffic in used.items():
        for outcome, count in traffic.requests.items():
            yield (*labels, outcome), count


def _bytes_of(used: Mapping[Labels, TrafficReading]) -> Iterator[tuple[Labels, float]]:
    for labels, traffic in used.items():
        yield (*labels, "sent"), traffic.sent
        yield (*labels, "received"), traffic.received


def _of_fleet(fleet: FleetReading) -> Iterator[Metric]:
    yield _gauge(
        "gateway_fleet_connected",
        "Whether there is a connection to NATS.",
        (),
        [((), fleet.connected)],
    )
    yield _gauge(
        "gateway_fleet_peers",
        "Hosts that a front knows, or fronts that a host knows.",
        (),
        [((), fleet.peers)],
    )
    yield _counter(
        "gateway_fleet_hosts_lost",
        "How often a front has given up a host that was gone or silent.",
        (),
        [((), fleet.lost)],
    )
    yield _counter(
        "gateway_fleet_requests_moved",
        "How often a request of a front was to be given to another host: no worker had it.",
        (),
        [((), fleet.again)],
    )
    yield _of_versions(fleet.hosts)
    for name, what in (
        ("capacity", "Requests that all workers of an agent at a host can have at a time."),
        ("in_flight", "Requests at the workers of an agent at a host."),
        ("waiting", "Requests that wait for a worker of an agent at a host."),
        ("given", "Requests of this front at an agent of a host."),
        ("draining", "Whether a host drains."),
    ):
        yield _gauge(
            f"gateway_fleet_host_{name}",
            what,
            ("agent", "host"),
            (((each.agent, each.host), getattr(each, name)) for each in fleet.places),
        )


def _of_versions(hosts: list[HostReading]) -> Metric:
    family = InfoMetricFamily("gateway_fleet_host", "The version of a host.", labels=("host",))
    for each in hosts:
        family.add_metric((each.host,), {"version": each.version})
    return family


def _of_connections(connections: ConnectionsReading) -> Iterator[Metric]:
    yield _gauge(
        "gateway_connections", "Open connections of clients.", (), [((), connections.open)]
    )
    yield _gauge(
        "gateway_connections_limit",
        "How many connections there may be: others would take descriptors that workers need.",
        (),
        [((), connections.most)],
    )
    yield _counter(
        "gateway_connections_refused",
        "Connections that were refused.",
        (),
        [((), connections.refused)],
    )


def _counter(
    name: str, text: str, labels: Labels, rows: Iterable[tuple[Labels, float]]
) -> CounterMetricFamily:
    family = CounterMetricFamily(name, text, labels=labels)
    for values, count in rows:
        family.add_metric(values, count)
    return family


def _gauge(
    name: str, text: str, labels: Labels, rows: Iterable[tuple[Labels, float]]
) -> GaugeMetricFamily:
    family = GaugeMetricFamily(name, text, labels=labels)
    for values, value in rows:
        family.add_metric(values, value)
    return family


def _histogram(
    name: str, text: str, labels: Labels, rows: Iterable[tuple[Labels, Distribution]]
) -> HistogramMetricFamily:
    family = HistogramMetricFamily(name, text, labels=labels)
    for values, distribution in rows:
        bounds = [*map(floatToGoString, distribution.bounds), "+Inf"]
        counts = accumulate(distribution.counts)
        family.add_metric(values, list(zip(bounds, counts, strict=True)), distribution.total)
    return family
