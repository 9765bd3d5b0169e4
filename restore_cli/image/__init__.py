"""Images in and out: what a file holds, how it is read and how it is written."""
