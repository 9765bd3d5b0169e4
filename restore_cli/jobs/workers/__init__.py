"""Who does the work: threads, processes, a Ray cluster."""
