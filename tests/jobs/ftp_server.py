"""An FTP server that runs until standard input ends: `python ftp_server.py FOLDER`. Prints its port."""

from __future__ import annotations

import logging
import os
import sys
import threading

from pyftpdlib.authorizers import DummyAuthorizer
from pyftpdlib.handlers import FTPHandler
from pyftpdlib.servers import FTPServer


def main() -> None:
    """Allow everyone to read and write."""
    logging.disable()
    people = DummyAuthorizer()
    people.add_user("me", "secret", sys.argv[1], perm="elradfmwMT")
    handler = type("Handler", (FTPHandler,), {"authorizer": people})
    server = FTPServer(("127.0.0.1", 0), handler)
    os.write(1, f"{server.socket.getsockname()[1]}\n".encode())
    threading.Thread(target=server.serve_forever, daemon=True).start()
    sys.stdin.read()


if __name__ == "__main__":
    main()
