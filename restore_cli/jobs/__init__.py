"""Many files: what to do, who does it, what has been done."""
