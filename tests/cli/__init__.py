"""The command line, run as users run it: a process of its own, a real Redis, a real nginx."""
