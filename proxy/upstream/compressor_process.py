"""The process that compresses for the gate, in turn what comes by standard input, until that ends: `python -m proxy.upstream.compressor_process`.

What is asked for: QUESTION, the data. What is answered: ANSWER, the compressed data; a size of 0 for what could not be done.
"""

from __future__ import annotations

import os
import struct
import sys
from contextlib import suppress
from typing import BinaryIO, Final

from proxy.http.codecs import CODINGS, compress

QUESTION: Final = struct.Struct(">BQ")
"""The coding, by its place in CODINGS; the size of the data."""
ANSWER: Final = struct.Struct(">Q")
MAX_MEMORY_BYTES: Final = 1024**3
MAX_CPU_S: Final = 600
"""A whole web UI takes some ten."""
_NICE: Final = 19


def main() -> None:
    _be_modest()
    with suppress(BrokenPipeError):  # the gate has ended meanwhile
        serve(sys.stdin.buffer, sys.stdout.buffer)
    os._exit(0)  # nothing is to be flushed into a pipe that nobody reads


def serve(questions: BinaryIO, answers: BinaryIO) -> None:
    """Until the end of the questions, in the midst of one too."""
    while len(head := questions.read(QUESTION.size)) == QUESTION.size:
        place, size = QUESTION.unpack(head)
        data = questions.read(size)
        if len(data) < size:
            return
        try:
            packed = compress(CODINGS[place], data)
        except Exception:  # the one that asked says so in the log
            packed = b""
        answers.write(ANSWER.pack(len(packed)) + packed)
        answers.flush()


def _be_modest() -> None:
    """It takes what nobody else wants of the machine, and not without end; as far as the system knows of such things and permits them."""
    with suppress(AttributeError, OSError):
        os.nice(_NICE)
    with suppress(ImportError, OSError, ValueError):
        import resource

        resource.setrlimit(resource.RLIMIT_CPU, (MAX_CPU_S, MAX_CPU_S))
        resource.setrlimit(resource.RLIMIT_AS, (MAX_MEMORY_BYTES, MAX_MEMORY_BYTES))


if __name__ == "__main__":
    main()
