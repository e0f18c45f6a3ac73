"""The fault suite: what happens to servers in production, done to real ones, and an exact count."""
