"""A bucket on an S3 server of its own, for tests of remote storage."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import uuid4

from s3_proxy import S3Proxy

__all__ = ["CREDENTIALS", "Store", "make_store", "start_s3_server"]

CREDENTIALS = {
    "AWS_ACCESS_KEY_ID": "testing",
    "AWS_SECRET_ACCESS_KEY": "testing",
    "AWS_SESSION_TOKEN": "testing",
    "AWS_DEFAULT_REGION": "us-east-1",
    "AWS_EC2_METADATA_DISABLED": "true",
    "AWS_MAX_ATTEMPTS": "1",  # of the lower of the two layers that try again, whose waits are random
}


@dataclass
class Store:
    """A bucket on a server, and the proxy through which the program reaches it."""

    bucket: str
    proxy: S3Proxy
    system: Any
    """s3fs, which reaches the server without the proxy"""
    process: subprocess.Popen[str]

    @property
    def url(self) -> str:
        """The URL of the bucket."""
        return f"s3://{self.bucket}"

    def put(self, name: str, content: bytes) -> None:
        """Write an object."""
        self.system.pipe_file(f"{self.bucket}/{name}", content)

    def read(self, folder: str) -> dict[str, bytes]:
        """Return the objects below a folder, without manifests, by their relative names."""
        self.system.invalidate_cache()
        found = self.system.find(f"{self.bucket}/{folder}")
        names = [path for path in found if "/.restore-manifest/" not in path]
        return {path.removeprefix(f"{self.bucket}/{folder}/"): self.system.cat_file(path) for path in names}

    def manifests(self, folder: str) -> list[str]:
        """Return the names of the manifest objects of a folder."""
        self.system.invalidate_cache()
        return [path.rpartition("/")[2] for path in self.system.find(f"{self.bucket}/{folder}/.restore-manifest")]

    def fill(self, folder: str, count: int) -> None:
        """Put empty images into a folder."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(f"{self.bucket} {folder} {count}\n")
        self.process.stdin.flush()
        self.process.stdout.readline()


@contextmanager
def start_s3_server() -> Iterator[tuple[subprocess.Popen[str], S3Proxy]]:
    """Start an S3 server in another process, and a proxy in front of it."""
    command, pipe = [sys.executable, str(Path(__file__).with_name("s3_server.py"))], subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        proxy = S3Proxy(int(process.stdout.readline()))
        yield process, proxy
        proxy.close()
        process.stdin.close()


def make_store(process: subprocess.Popen[str], proxy: S3Proxy) -> Store:
    """Make an empty bucket on a server."""
    import s3fs

    proxy.reset()
    bucket = f"b{uuid4().hex}"
    system = s3fs.S3FileSystem(endpoint_url=f"http://127.0.0.1:{proxy.port}", skip_instance_cache=True)
    system.mkdir(bucket)
    return Store(bucket, proxy, system, process)
