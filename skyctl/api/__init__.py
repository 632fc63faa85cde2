"""The HTTP API: routes, authentication, the shape of errors, the heartbeat path."""
