"""Names as people give them to files, and names as they are given by those who want somebody else's."""

from __future__ import annotations

# fmt: off
ORDINARY = (
    "photo.png", "sub/photo.png", ".hidden", "a b/c (1).png", "100%.png", "%2e%2e", "\u65e5\u672c\u8a9e.png", "\u00e9.png", "e\u0301.png", "a~b",
    "...a", "console.txt", "com.png", "tenants", "tenants/bob/x.png", "Tenants/alice/x", "wait\u2026.png", "x" * 200, "/".join(["a" * 100] * 10),
)
TRAVERSALS = (
    "..", "../bob/x", "a/../b", "a/..", "./a", "a/./b", ".", "a//b", "/", "/etc/passwd", "a/", "/a", "a/... /b", "...", ".. ",
)
WINDOWS = (
    "..\\bob", "a\\b", "C:/x", "C:x", "a:stream", "\\\\host\\share", "a.", "a ", "a./b", "a /b",
    "con", "CON", "nul.txt", "Com1", "lpt9.tar.gz", "COM\u00b9", "aux .png", "a/prn/b", "CONIN$", "conout$.log",
)
INVISIBLE = ("a\x00b", "a\nb", "a\x7f", "\u200b", "a\u202eb", "\ufeffa", "\ud800", "a\u2028b", "\x85")
LOOK_ALIKES = (
    "\uff0e\uff0e/x", "\u2025", "\u2024\u2024", "a\uff0fb", "a\uff3cb", "a\uff1ab", "a\uff0e", "\uff23\uff2f\uff2e", "\uff2e\uff35\uff2c.txt",
)
HOSTILE = (*TRAVERSALS, *WINDOWS, *INVISIBLE, *LOOK_ALIKES, "x" * 201, "\u00e9" * 101, "/".join(["a" * 100] * 11))

# What the properties make names of.
PIECES = (
    "a", "photo.png", "..", ".", "/", "//", "\\", "%2e", "%2f", "%252e%252e", "%5c", "%00", "tenants", "alice", "bob", "C:", "~", " ", "con", "NUL.txt",
    "[output]", " [temp]", "\uff0e\uff0e", "\u2024", "\uff0f", "\u2215", "e\u0301", "\u00e9", "\u200b", "\x00", "\n", "\u65e5\u672c",
)
NOT_ALICES = (
    "", "x.png", "tenants", "tenants/", "tenants/bob", "tenants/bob/x", "tenants/alice2/x", "tenants/alice-2/x", "Tenants/alice/x", "tenants/ALICE/x",
    "/tenants/alice/x", "tenants//alice/x", "tenants/alice/", "tenants/alice/../bob/x", "tenants/alice/a//b", "/base/output/tenants/alice/x",
    "xtenants/alice/x",
)
# fmt: on
