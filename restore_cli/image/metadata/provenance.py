"""What was done to a picture, said in the file: XMP, and the keyword Software where the file has texts."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from importlib.metadata import PackageNotFoundError, version
from xml.sax.saxutils import quoteattr

from restore_cli.image.picture import Metadata

__all__ = ["Provenance", "add_provenance", "strip_metadata"]

_SPACE = "urn:restore-cli:1.0:"
_END = re.compile(rb"</(\w+):RDF\s*>")
_RDF = b"http://www.w3.org/1999/02/22-rdf-syntax-ns#"
_PACKET = (
    '<?xpacket begin="\ufeff" id="W5M0MpCehiHzreSzNTczkc9d"?><x:xmpmeta xmlns:x="adobe:ns:meta/">'
    '<rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#"></rdf:RDF></x:xmpmeta><?xpacket end="w"?>'
)


@dataclass(frozen=True)
class Provenance:
    """The task, the checkpoint with its sha256, and how many times a picture was enlarged."""

    task: str
    model: str
    sha256: str
    scale: int

    @property
    def software(self) -> str:
        """The program and its version."""
        try:
            return f"restore {version('restore-cli')}"
        except PackageNotFoundError:
            return "restore"


def add_provenance(metadata: Metadata, note: Provenance) -> Metadata:
    """The metadata with the note in its XMP, which is begun where there is none; nothing of theirs is changed."""
    fields = {"Task": note.task, "Model": note.model, "Sha256": note.sha256, "Scale": str(note.scale)}
    values = " ".join(f"restore:{name}={quoteattr(value)}" for name, value in fields.items() if value)
    space = f'xmlns:restore="{_SPACE}" xmlns:xmp="http://ns.adobe.com/xap/1.0/"'
    description = f'<rdf:Description xmlns:rdf="{_RDF.decode()}" rdf:about="" {space} xmp:CreatorTool="{note.software}"'
    own = f"{description} {values}/>".encode()
    if metadata.xmp and b"CreatorTool" in metadata.xmp:  # a property may stand once
        own = own.replace(f' xmp:CreatorTool="{note.software}"'.encode(), b"")
    packet = metadata.xmp or _PACKET.encode()
    ends = list(_END.finditer(packet))
    if not ends or b"urn:restore-cli" in packet:  # XMP that is none, or a picture restored before: as it was
        return metadata
    xmp = packet[: ends[-1].start()] + own + packet[ends[-1].start() :]
    return replace(metadata, xmp=xmp, text={"Software": note.software, **metadata.text})


def strip_metadata(metadata: Metadata) -> Metadata:
    """Nothing but what the colours need to be right."""
    return Metadata(
        icc=metadata.icc,
        png=metadata.png,
        duration=metadata.duration,
        loop=metadata.loop,
        left_out=metadata.left_out,
    )
