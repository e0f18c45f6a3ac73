import multiprocessing

# For requests only: an open stream takes neither a thread nor a worker.
worker_class = "gthread"
workers = multiprocessing.cpu_count()
threads = 4
# Of pages, an eighth of the usual 1024 descriptors: streams, Redis and files have the others.
worker_connections = 128
preload_app = True
# Workers are replaced now and then, at different times; their streams go on elsewhere.
max_requests = 10_000
max_requests_jitter = 2_000
