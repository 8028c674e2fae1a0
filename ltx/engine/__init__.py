"""Training: R replicates at once, always on the first axis; executors are the ways of doing it."""
