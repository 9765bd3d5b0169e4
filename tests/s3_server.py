"""An S3 server that runs until standard input ends: `python s3_server.py`. Prints its port.

Each line of standard input, `BUCKET FOLDER COUNT`, puts empty images into a folder of a bucket. A line is the answer.
"""

from __future__ import annotations

import logging
import os
import sys
import warnings


def main() -> None:
    """Serve, and fill folders from inside, which takes a thousandth of the time of requests."""
    warnings.simplefilter("ignore")
    logging.disable()
    from moto.s3.models import s3_backends
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    os.write(1, f"{server.get_host_and_port()[1]}\n".encode())
    for line in sys.stdin:
        bucket, folder, count = line.split()
        backend = s3_backends["123456789012"]["aws"]
        for number in range(int(count)):
            backend.put_object(bucket, f"{folder}/{number:05d}.png", b"")
        os.write(1, b"\n")
    server.stop()


if __name__ == "__main__":
    main()
