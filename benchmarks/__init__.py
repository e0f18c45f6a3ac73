"""Peers and streamy-redis side by side: the same work, from one process each, one after another.

``scripts/bench`` runs it. Server on one core; Redis, the sender and the load client on another.
"""
