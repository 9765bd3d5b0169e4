"""What a file says beside its pixels."""
