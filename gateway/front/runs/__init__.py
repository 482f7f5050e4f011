"""Runs: requests that outlive their connections. The README beside this file is for their users.

Theory of operation
-------------------

A request of a client and the work of an agent are usually one thing: `answers.Reply` takes words
out of the exchange and sends them, and a client that leaves ends the exchange. A *run* takes the
two apart. A task of the gateway's own (the *pump*, in `service`) takes the words out of the
exchange, has the same codec encode them, and puts what comes out into the run. Any number of
*readers* (`reading`) send it from there, each at its own position and in its own time.

    exchange ─ pump ─ codec ─> run: events in a ring, or one answer ─┬─> who has asked
                                                                     ├─> who repeats the request
                                                                     └─> who comes for the run

A request is a run only if something says so: its agent continues without clients, the client
prefers `respond-async` or sends an Idempotency-Key (`wishes`), or its protocol has it so
(`Call.continues`). Any other costs two look-ups in a dictionary and goes the way it has always
gone. Every run goes on when its client leaves, whatever `on_disconnect` says: who sends a key
wants to come back, and who is answered with 202 has left already. What ends a run before its end
is its agent's clocks, the shutdown, or a request to cancel it.

**Exactly once.** What is kept is what is sent: bytes, encoded once, divided into events where the
format has its blank lines (`ring`). Event n carries `id: n`. So whoever comes back with the last
id that it has got whole reads on at the next one, and all readers read the same bytes, but for the
comments that fill each one's silences. What is no longer there is said to be gone: with 410 before
the response has begun, by an `error` event afterwards. No stream that has lost anything ends like
one that has not.

**Backpressure.** While anybody reads, the pump goes at most `WINDOW` ahead of the *fastest*
reader; beyond that it waits, the exchange fills, and the worker is held as for any slow client.
The fastest one counts because a client that comes back after it has lost its connection often
leaves the old connection behind, which nobody reads and nobody closes: it must not hold up the one
that has taken its place. A slow reader beside a fast one loses what falls out of the ring, and is
told. A reader that does not read at all is given up by the `write` clock, as any client. While
nobody reads, the pump goes on, and the ring drops its oldest events. So it does while a worker that
others wait for cannot be held (`Exchange.spill`): a stream that is no run's is ended there.

**Bounds** are held by `registry`, which says in which order things are forgotten. Of one run, a
ring keeps a quarter of the memory for all at most. Each run has at most `MAX_READERS` readers.

**Whose it is.** Ids are secrets that only work together with the credential that the run was
started with; `ids` says how they are told apart without keeping them.

**An end before the first event** has a status of its own, as for any stream: the error response is
kept beside the ring, for the run's own request and its repetitions. Who attaches to the run gets
it as the stream's one event.

**Protocols with such objects of their own** (OpenAI's Responses in the background) have a
`RunCodec`. It is told the run's id before anything is encoded, and tells the object at any time.
Its last telling is kept with the run, so that the codec, which may hold as much as its request
did, need not be.

What was never read by a worker is not remembered under its key: a refusal makes no run at all, and
a run that fails before its request was handed over gives its key back.
"""
