"""A record of the restoration in the result's metadata: XMP, and the PNG keyword Software."""

from __future__ import annotations

import re
from dataclasses import asdict, dataclass, replace
from importlib.metadata import PackageNotFoundError, version
from xml.sax.saxutils import quoteattr

from restore_cli.image.picture import Metadata

__all__ = ["Provenance", "add_provenance", "strip_metadata"]

_NAMESPACE = "urn:restore-cli:1.0:"
_END = re.compile(rb"</(\w+):RDF\s*>")
_RDF = "http://www.w3.org/1999/02/22-rdf-syntax-ns#"
_PACKET = (
    '<?xpacket begin="\ufeff" id="W5M0MpCehiHzreSzNTczkc9d"?><x:xmpmeta xmlns:x="adobe:ns:meta/">'
    '<rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#"></rdf:RDF></x:xmpmeta><?xpacket end="w"?>'
)


@dataclass(frozen=True)
class Provenance:
    """How a picture was restored: the task, the checkpoint and its sha256, and the scale factor."""

    task: str
    model: str
    sha256: str
    scale: int
    tta: bool = False
    """whether the result is the mean of eight passes over flipped and rotated tiles"""
    strength: float = 1.0
    """share of the restored image in the result"""

    @property
    def software(self) -> str:
        """The program and its version."""
        try:
            return f"restore {version('restore-cli')}"
        except PackageNotFoundError:
            return "restore"


def add_provenance(metadata: Metadata, provenance: Provenance) -> Metadata:
    """Return the metadata with a record in its XMP, which is created if there is none.

    Existing properties are not changed. XMP with an earlier record, or without an rdf:RDF element, stays as it is.
    """
    blended = f"{provenance.strength:g}" if provenance.strength < 1 else ""
    fields = (asdict(provenance) | {"strength": blended}).items()
    values = " ".join(f"restore:{name.capitalize()}={quoteattr(str(value))}" for name, value in fields if value)
    namespaces = (
        f'xmlns:rdf="{_RDF}" rdf:about="" xmlns:restore="{_NAMESPACE}" xmlns:xmp="http://ns.adobe.com/xap/1.0/"'
    )
    stated = metadata.xmp and b"CreatorTool" in metadata.xmp  # a property may occur only once
    tool = "" if stated else f' xmp:CreatorTool="{provenance.software}"'
    packet = metadata.xmp or _PACKET.encode()
    ends = list(_END.finditer(packet))
    if not ends or b"urn:restore-cli" in packet:
        return metadata
    end = ends[-1].start()
    xmp = packet[:end] + f"<rdf:Description {namespaces}{tool} {values}/>".encode() + packet[end:]
    return replace(metadata, xmp=xmp, text={"Software": provenance.software, **metadata.text})


def strip_metadata(metadata: Metadata) -> Metadata:
    """Return only the metadata that displays the picture correctly: colours and animation timing."""
    return replace(metadata, exif=None, xmp=None, dpi=None, text={}, iptc=None)
