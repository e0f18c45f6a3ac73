"""streamy-redis, used as its README shows."""
