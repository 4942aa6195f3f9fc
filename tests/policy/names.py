"""Names as people give them to files, and names as they are given by those who want somebody else's."""

from __future__ import annotations

# fmt: off
ORDINARY = (
    "photo.png", "sub/photo.png", ".hidden", "a b/c (1).png", "100%.png", "50% denoise.json", "\u65e5\u672c\u8a9e.png", "\u00e9.png", "e\u0301.png",
    "a~b", "...a", "console.txt", "com.png", "tenants", "tenants/bob/x.png", "Tenants/alice/x", "wait\u2026.png", "x" * 255, "\u00e9" * 127,
    "/".join(["a" * 100] * 10), "SD 3.5 - 16:9.json", "SD 3.5 - 16\uff1a9\uff1f.json", "\u0645\u06cc\u200c\u062e\u0648\u0627\u0647\u0645.png",
    "\U0001f468\u200d\U0001f469.png", "ab:stream", "a.", "a ", "a./b", "a /b", "~=a", "~=con (1).png", "a\u202eb", "\ufeffa", "a\uff0e",
)
DEVICES = (
    "con", "CON", "nul.txt", "Com1", "lpt9.tar.gz", "COM\u00b9", "aux .png", "a/prn/b", "CONIN$", "conout$.log", "\uff23\uff2f\uff2e", "\uff2e\uff35\uff2c.txt",
)
CONTROLS = ("a\nb", "a\x7f", "a\u2028b", "\x85", "a\r\nb")
LOOK_ALIKES = (
    "\uff0e\uff0e/x", "\u2025", "\u2024\u2024", "a\uff0fb", "a\uff3cb", "a\uff1ab", "\u200b", ".\u200d.", "x/a:b", "a/... /b", "...", ".. ",
    "%2e%2e/x", "%252e%252e", "a%2fb", "a%5cb", "a%00b", "blake3:" + "0" * 64, "~==2E=2E=2E", "~=con", "~=~=3Dcon",
)
# Carried in a safe spelling.
ODD = (*DEVICES, *CONTROLS, *LOOK_ALIKES)
# Read as ComfyUI reads them.
READ_AS = {
    "./a": "a", "a/./b": "a/b", "a//b": "a/b", "a/": "a", "a\\b": "a/b", "a\\": "a", ".\\a": "a", "tenants/alice/a": "a", "tenants\\alice\\a": "a",
    "tenants/alice/~==2E=2E=2E": "...",
}
TRAVERSALS = ("..", "../bob/x", "a/../b", "a/..", "/", "/etc/passwd", "/a", "..\\bob", "\\\\host\\share", "C:/x", "C:x", "c:\\x", "./C:x", "tenants/alice/C:x")
TOO_LONG = ("x" * 256, "\u00e9" * 128, "/".join(["a" * 100] * 11), "/".join(["a"] * 33), "\uff0f" * 30)
# Refused wherever they come in.
HOSTILE = (*TRAVERSALS, *TOO_LONG, "a\x00b", "\ud800")

# What the properties make names of.
PIECES = (
    "a", "photo.png", "..", ".", "/", "//", "\\", "%2e", "%2f", "%252e%252e", "%5c", "%00", "tenants", "alice", "bob", "C:", "~", " ", "con", "NUL.txt",
    "[output]", " [temp]", "\uff0e\uff0e", "\u2024", "\uff0f", "\u2215", "e\u0301", "\u00e9", "\u200b", "\x00", "\n", "\u65e5\u672c",
)
NOT_ALICES = (
    "", "x.png", "tenants", "tenants/", "tenants/bob", "tenants/bob/x", "tenants/alice2/x", "tenants/alice-2/x", "Tenants/alice/x", "tenants/ALICE/x",
    "/tenants/alice/x", "tenants//alice/x", "tenants/alice/", "tenants/alice/../bob/x", "tenants/alice/a//b", "/base/output/tenants/alice/x",
    "xtenants/alice/x", "tenants/alice/a\x00b", "tenants/alice/\udc80",
)
# fmt: on
