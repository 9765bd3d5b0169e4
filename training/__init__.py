"""Makes the bundled checkpoints.

`--model lite`: `python -m training.train NAME`, then `python -m training.export NAME`.
EMT: `python -m training.convert_emt` from the authors' files.
"""
