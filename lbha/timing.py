"""Times of lbha's own on which the length of a failover depends, in seconds, each in this one place: for those
that wait (the agent, the drill's client) and for those that compute how long it may take (`lbha.forecast`,
`lbha.outcome`). Imports nothing."""

HAPROXY_INTERVAL = 0.1
"""Between two of the agent's questions to haproxy (0.07 ms of haproxy's time each, measured). The end of its
connection tells of a crash at once; by the next question it is noticed in any case."""

HAPROXY_DEADLINE = 0.35
"""Until an answer of haproxy is missing: it is frozen."""

TICK = 0.2
"""The slowest that the agent's loop notices that time has passed."""

ADVERT_LOOK = 0.2
"""Between the agent's looks at VRRP adverts that have come."""

REPORT_FRESH = 1.6
"""Since a peer's report, that it counts for: one and a half of its period."""

CONNECT = 0.7
"""haproxy's `timeout connect`, in templates/haproxy/haproxy.cfg.j2: after it, a server that does not answer at
all is marked down by the connection that met it (`observe layer4 error-limit 1`)."""

DRILL_REQUEST = 0.02
"""Between two requests of the drill's client: a gap is seen to within two of them."""
