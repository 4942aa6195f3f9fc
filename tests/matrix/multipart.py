"""Uploads byte for byte, for shapes that no library would send."""

from __future__ import annotations

BOUNDARY = "matrixboundary"
CONTENT_TYPE = {"Content-Type": f"multipart/form-data; boundary={BOUNDARY}"}


def part(disposition: str, content: bytes = b"", *more: str) -> bytes:
    """disposition: what follows `form-data; `."""
    lines = (f"Content-Disposition: form-data; {disposition}", *more)
    return "\r\n".join(lines).encode("utf-8", "surrogateescape") + b"\r\n\r\n" + content


def field(name: str, value: str) -> bytes:
    return part(f'name="{name}"', value.encode())


def file(picture: bytes, filename: str = "x.png", disposition: str = "") -> bytes:
    return part(disposition or f'name="image"; filename="{filename}"', picture, "Content-Type: image/png")


def body(*parts: bytes) -> bytes:
    return b"".join(f"--{BOUNDARY}\r\n".encode() + each + b"\r\n" for each in parts) + f"--{BOUNDARY}--\r\n".encode()
