"""Memory that is freed and soon needed again."""

import contextlib
import ctypes
import sys
from collections.abc import Iterator

# From malloc.h of the GNU C library, where these are part of the interface.
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3
LARGEST_KEPT = 32 * 2**20  # bytes of a block; the library takes no more
_depth = 0


@contextlib.contextmanager
def kept_memory() -> Iterator[None]:
    """While inside, memory that tensors free stays with the process, for the next ones.

    The GNU C library gives large blocks back to the system and gets fresh pages for the next ones.
    A loop over activations of megabytes then spends up to half of its time in page faults. At the
    end what is free is given back, and the thresholds are the largest that the library's own rule
    comes to. Other systems' allocators are left alone.
    """
    global _depth
    if _LIBRARY is None:
        yield
        return
    _LIBRARY.mallopt(M_MMAP_THRESHOLD, LARGEST_KEPT)
    _LIBRARY.mallopt(M_TRIM_THRESHOLD, 2**31 - 1)
    _depth += 1
    try:
        yield
    finally:
        _depth -= 1
        if _depth == 0:
            _LIBRARY.mallopt(M_TRIM_THRESHOLD, 2 * LARGEST_KEPT)
            _LIBRARY.malloc_trim(0)


def _gnu_library() -> ctypes.CDLL | None:
    if not sys.platform.startswith("linux"):
        return None
    with contextlib.suppress(OSError, AttributeError):
        library = ctypes.CDLL(None)
        library.gnu_get_libc_version  # noqa: B018, musl has none
        return library
    return None


_LIBRARY = _gnu_library()
