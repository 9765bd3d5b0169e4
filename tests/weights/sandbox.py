"""A hub, an empty cache, and clients in their own processes with the real library."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hub_server import COMMIT, NEW_NAME, Fault, HubServer
from systems import IMPORT_PATH

ROOT = Path(__file__).parents[2]
CLIENT = Path(__file__).parent / "client.py"

EMT = """
[{name}.emt]
scale = 2
dim = 60
blocks = 6
layers = 6
attention_layers = 2
heads = 3
mlp_ratio = 2.0
windows = [[32, 8], [8, 32]]
"""


def hub_source(repo: str, repo_type: str = "model", revision: str = COMMIT, file: str = "sub/file.pth") -> str:
    """Return a source as in a catalogue file. `repo_type` is omitted for a model."""
    kind = f'repo_type = "{repo_type}", ' if repo_type != "model" else ""
    return f'{{ hub = "{repo}", {kind}revision = "{revision}", file = "{file}" }}'


@dataclass
class Sandbox:
    """A hub, an empty cache, a catalogue to which tests add entries, and clients that use them."""

    folder: Path
    hub: HubServer
    payload: bytes
    tables: list[str] = field(default_factory=list)

    @property
    def sha256(self) -> str:
        return hashlib.sha256(self.payload).hexdigest()

    @property
    def store(self) -> str:
        """Host and port of addresses outside of the hub."""
        return f"127.0.0.1:{self.hub.store.server_port}"

    def fill_in(self, reason: str) -> str:
        """Return a reason with SIZE, HALF and NEW replaced by the payload's sizes and the new address of bad.pth."""
        size, new = len(self.payload), f"http://{self.store}/plain/{NEW_NAME}bad.pth"
        return reason.replace("SIZE", str(size)).replace("HALF", str(size // 2)).replace("NEW", new)

    @property
    def cache(self) -> Path:
        return self.folder / "cache"

    def add_entry(self, name: str, *sources: str, sha256: str | None = "", size: int | None = 0) -> str:
        """Add an entry with these sources. sha256 and size default to the payload's, and None omits them."""
        lines = [f"[{name}]", f'title = "{name}"', 'task = "sr"', 'model = "test"', f'variant = "{name}"']
        lines += ['license = "MIT"', f"sources = [{', '.join(sources)}]"]
        if sha256 is not None:
            lines.append(f'sha256 = "{sha256 or self.sha256}"')
        if size is not None:
            lines.append(f"bytes = {size or len(self.payload)}")
        self.tables.append("\n".join(lines) + "\n" + EMT.format(name=name))
        (self.folder / "own.toml").write_text("\n".join(self.tables), encoding="utf-8")
        return name

    def add_to_hub(
        self, repo: str, fault: Fault | None = None, payload: bytes | None = None, repo_type: str = "model"
    ) -> str:
        """Add a file to a repository of the hub. Return it as a source."""
        self.hub.add(repo, COMMIT, "sub/file.pth", payload or self.payload, fault, repo_type)
        return hub_source(repo, repo_type)

    def add_url(self, path: str, fault: Fault | None = None, payload: bytes | None = None) -> str:
        """Add a file at an address. Return it as a source."""
        return f'{{ url = "{self.hub.add_url(path, payload or self.payload, fault)}" }}'

    def environment(self, **more: str) -> dict[str, str]:
        """Return the environment of a process that knows only this hub, this cache and this catalogue."""
        clean = {
            k: v for k, v in os.environ.items() if not k.startswith(("HF_", "RESTORE_")) and "proxy" not in k.lower()
        }
        ours = {
            "HF_ENDPOINT": self.hub.url,
            "HF_HOME": str(self.folder / "hf"),
            "HF_HUB_DISABLE_IMPLICIT_TOKEN": "0",
            "RESTORE_CACHE": str(self.cache),
            "RESTORE_WEIGHTS_TOML": str(self.folder / "own.toml"),
            "PYTHONPATH": IMPORT_PATH,
        }
        return clean | ours | more

    def start_client(self, *commands: str, **environment: str) -> subprocess.Popen[str]:
        """Start a client process that runs the commands in order."""
        argv = [sys.executable, "-W", "error", str(CLIENT), *commands]
        pipe, own = subprocess.PIPE, self.environment(**environment)
        return subprocess.Popen(argv, cwd=ROOT, env=own, stdout=pipe, stderr=pipe, text=True, encoding="utf-8")

    def start_command(self, *argv: str, **environment: str) -> subprocess.Popen[str]:
        """Start the command `restore`."""
        command, own = [sys.executable, "-W", "error", "-m", "restore_cli", *argv], self.environment(**environment)
        pipe = subprocess.PIPE
        return subprocess.Popen(
            command, cwd=self.folder, env=own, stdout=pipe, stderr=pipe, text=True, encoding="utf-8"
        )

    def run_command(self, *argv: str, **environment: str) -> subprocess.CompletedProcess[str]:
        """Run the command `restore` and wait for its end."""
        with self.start_command(*argv, **environment) as command:
            out, err = command.communicate()
        return subprocess.CompletedProcess(argv, command.returncode, out, err)

    def run_client(self, *commands: str, **environment: str) -> list[dict[str, Any]]:
        """Run the client. Return its line for each command, and check that it prints nothing else."""
        with self.start_client(*commands, **environment) as client:
            out, err = client.communicate()
        assert (client.returncode, err) == (0, "")
        return [json.loads(line) for line in out.splitlines()]

    def has_payload(self, path: str) -> bool:
        return Path(path).read_bytes() == self.payload

    def find_leftovers(self) -> list[str]:
        """Return the names of partial files, which a failed or finished download should not leave."""
        everything = [p for p in self.folder.rglob("*") if p.is_file()]
        return [p.name for p in everything if p.suffix in (".part", ".incomplete")]
