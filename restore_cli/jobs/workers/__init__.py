"""Executors: threads of this process, processes, Ray actors."""
