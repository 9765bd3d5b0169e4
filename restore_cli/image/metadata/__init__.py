"""EXIF, XMP, IPTC, colour profiles and texts of a file."""
