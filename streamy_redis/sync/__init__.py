"""The shells for threads and gevent: they wait, lock, read and write, and decide nothing."""
