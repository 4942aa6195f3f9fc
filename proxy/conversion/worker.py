"""The process that converts files for the gate, one after the other, until there are no more orders: `python -m proxy.conversion.worker`.

SECURITY: a picture is what somebody's workflow made, and decoders have faults. So they run here: without the gate's memory, connections and secrets,
with little memory and time, and who breaks this process breaks no other (tests/proxy/conversion/test_pool.py).
"""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO, Final

from blake3 import blake3

from proxy.conversion.order import Answer, NotConverted, Order, read_order
from proxy.conversion.stripping import write_stripped

MAX_MEMORY_BYTES: Final = 1024**3
"""Suffices for 36 million pixels as a JPEG or WebP; two of these fit the 2 GB that the units in deploy/ give the gate."""
_MAX_FILES: Final = 64
_NICE: Final = 10
_PIECE_BYTES: Final = 1024**2
_OF_THE_DISK: Final = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.ENOENT, errno.EEXIST})
"""What goes wrong with the target, and not with the picture."""
_PLAIN: Final = getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_BINARY", 0)
UNREADABLE: Final = "It cannot be read as a picture."


def main() -> None:
    orders = sys.stdin.buffer
    # What a library prints is no answer.
    answers = os.fdopen(os.dup(1), "wb", buffering=0)
    os.dup2(2, 1)
    _be_modest()
    while line := orders.readline():
        order = read_order(line)
        _limit(order)
        answer = convert(order)
        try:
            answers.write(answer.line())
        except BrokenPipeError:  # the gate was killed meanwhile: nobody takes it
            with suppress(OSError):
                os.unlink(order.target)
            break
    os._exit(0)


class _Gone(Exception):
    """The source is not there, or is another one."""


def convert(order: Order) -> Answer:
    """Never raises what the picture is to blame for."""
    try:
        write = _writer(order)
        with _opened(order) as source, _created(order.target) as target:
            write(source, target, order)
    except ImportError as error:
        return Answer(failed=f"Pillow cannot be used ({error}): install comfygate[convert]")
    except _Gone:
        return Answer(is_gone=True)
    except NotConverted as error:
        return Answer(refused=str(error))
    except MemoryError:
        return Answer(refused="It needs more memory than a conversion may take.")
    except OSError as error:
        if error.errno == errno.EFBIG:
            return Answer(refused=f"It would have more than {order.max_bytes} bytes.")
        if error.errno in _OF_THE_DISK:
            return Answer(failed=f"{order.target}: {error.strerror}")
        return Answer(refused=UNREADABLE)
    except Exception:  # what a decoder raises for a broken file: ValueError, SyntaxError, struct.error, and more
        return Answer(refused=UNREADABLE)
    return _measured(Path(order.target))


def _writer(order: Order) -> Callable[[BinaryIO, BinaryIO, Order], None]:
    """Raises ImportError where Pillow is needed and cannot be used."""
    if not order.format:
        return write_stripped
    from proxy.conversion.pictures import write_converted

    return write_converted


def _opened(order: Order) -> BinaryIO:
    """Raises _Gone."""
    try:
        descriptor = os.open(order.source, os.O_RDONLY | _PLAIN)
    except OSError:
        raise _Gone from None
    source = os.fdopen(descriptor, "rb")
    found = os.fstat(descriptor)
    # SECURITY: a preview's name may come again, as a neighbour's (tests/matrix/test_reuse.py): what is read here is what was recorded.
    if order.stamp and order.stamp != f"{found.st_mtime_ns:x}-{found.st_size:x}":
        source.close()
        raise _Gone
    return source


def _created(target: str) -> BinaryIO:
    return os.fdopen(os.open(target, os.O_RDWR | os.O_CREAT | os.O_EXCL | _PLAIN, 0o600), "w+b")


def _measured(target: Path) -> Answer:
    digest, size_bytes = blake3(), 0
    try:
        with target.open("rb") as opened:
            while piece := opened.read(_PIECE_BYTES):
                digest.update(piece)
                size_bytes += len(piece)
    except OSError as error:
        return Answer(failed=f"{target} cannot be read: {error.strerror}")
    return Answer(size_bytes, f"blake3:{digest.hexdigest()}")


def _be_modest() -> None:
    """As far as the system knows of such things and permits them."""
    with suppress(AttributeError, OSError):
        os.nice(_NICE)
    # SECURITY: a system that is short of memory ends this process, and not the gate.
    with suppress(OSError), open("/proc/self/oom_score_adj", "w", encoding="ascii") as score:
        score.write("1000")
    with suppress(ImportError, OSError, ValueError):
        import resource

        resource.setrlimit(resource.RLIMIT_AS, (MAX_MEMORY_BYTES, MAX_MEMORY_BYTES))
        resource.setrlimit(resource.RLIMIT_NOFILE, (_MAX_FILES, _MAX_FILES))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # it would hold the picture


def _limit(order: Order) -> None:
    """For what comes next; a gate that was killed ends nothing any more."""
    with suppress(ImportError, OSError, ValueError):
        import resource

        used = resource.getrusage(resource.RUSAGE_SELF)
        spent_s = int(used.ru_utime + used.ru_stime)
        resource.setrlimit(resource.RLIMIT_CPU, (spent_s + order.cpu_s, resource.getrlimit(resource.RLIMIT_CPU)[1]))
        resource.setrlimit(resource.RLIMIT_FSIZE, (order.max_bytes, resource.getrlimit(resource.RLIMIT_FSIZE)[1]))


if __name__ == "__main__":
    main()
