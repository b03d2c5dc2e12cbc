"""Takes rights away from this process for good, by Landlock: where it may write, TCP, signals to others.

Linux 5.13 and newer, without privileges; more is covered by newer kernels, see
:data:`NET_ABI` and :data:`SCOPE_ABI`. Holds for the calling thread and every thread
and process that it starts later; threads that run already keep their rights. What
is open stays usable. Reading is not restricted. Knows nothing about workers.

Source of the numbers: include/uapi/linux/landlock.h; https://docs.kernel.org/userspace-api/landlock.html
"""

from __future__ import annotations

import ctypes
import os
import sys
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Sequence

CREATE, ADD, RESTRICT = 444, 445, 446  # numbers of the system calls, the same on every architecture but alpha
VERSION: Final = 1
NO_NEW_PRIVILEGES: Final = 38
PATH_BENEATH: Final = 1
WRITE_FILE, TRUNCATE, REFER = 1 << 1, 1 << 14, 1 << 13
# Remove folders and files; make devices, folders, files, sockets, pipes and links.
WRITE: Final = WRITE_FILE | sum(1 << bit for bit in range(4, 13))
TCP: Final = 0b11  # bind, connect
SCOPES: Final = 0b11  # abstract sockets, signals
REFER_ABI, TRUNCATE_ABI, NET_ABI, SCOPE_ABI = 2, 3, 4, 6
DEVICES: Final = ("null", "zero", "full", "nvidia*", "nvidia-caps/*", "dri/*", "kfd")


class _Ruleset(ctypes.Structure):
    _fields_ = (("fs", ctypes.c_uint64), ("net", ctypes.c_uint64), ("scoped", ctypes.c_uint64))


class _Beneath(ctypes.Structure):
    _pack_ = 1
    _fields_ = (("allowed", ctypes.c_uint64), ("parent", ctypes.c_int32))


@cache
def version() -> int:
    """Version of the kernel's interface; 0 where there is none."""
    if sys.platform != "linux":
        return 0
    return max(0, int(_libc().syscall(CREATE, None, ctypes.c_size_t(0), ctypes.c_uint32(VERSION))))


def confine(writable: Sequence[Path]) -> tuple[str, ...]:
    """Leave only some places to write to, no TCP and no signals to others, as far as this kernel can.

    Args:
        writable: files and folders, with what is below them; one that is not there is left out. Devices that
            computing needs are writable too.

    Returns:
        What is kept from now on: ``writes``, ``tcp``, ``signals``; nothing where there is no Landlock.

    Raises:
        OSError: the kernel refused although it offers Landlock.
    """
    abi = version()
    if not abi:
        return ()
    writes = WRITE | (REFER if abi >= REFER_ABI else 0) | (TRUNCATE if abi >= TRUNCATE_ABI else 0)
    wanted = _Ruleset(writes, TCP if abi >= NET_ABI else 0, SCOPES if abi >= SCOPE_ABI else 0)
    size = 24 if abi >= SCOPE_ABI else 16 if abi >= NET_ABI else 8
    rules = _call(CREATE, ctypes.byref(wanted), ctypes.c_size_t(size), ctypes.c_uint32(0))
    try:
        devices = [found for name in DEVICES for found in Path("/dev").glob(name)]
        for place in (*writable, *devices):
            _allow(rules, place, writes)
        if _libc().prctl(NO_NEW_PRIVILEGES, 1, 0, 0, 0):
            raise OSError(ctypes.get_errno(), "no new privileges")
        _call(RESTRICT, ctypes.c_int(rules), ctypes.c_uint32(0))
    finally:
        os.close(rules)
    return ("writes", *(["tcp"] if abi >= NET_ABI else []), *(["signals"] if abi >= SCOPE_ABI else []))


def _allow(rules: int, place: Path, writes: int) -> None:
    with suppress(OSError):
        parent = os.open(place, getattr(os, "O_PATH", 0) | os.O_CLOEXEC)
        try:
            allowed = writes if place.is_dir() else writes & (WRITE_FILE | TRUNCATE)
            rule = _Beneath(allowed, parent)
            _call(ADD, ctypes.c_int(rules), ctypes.c_int(PATH_BENEATH), ctypes.byref(rule), ctypes.c_uint32(0))
        finally:
            os.close(parent)


def _call(number: int, *arguments: object) -> int:
    done = int(_libc().syscall(ctypes.c_long(number), *arguments))
    if done < 0:
        raise OSError(ctypes.get_errno(), f"landlock: {os.strerror(ctypes.get_errno())}")
    return done


@cache
def _libc() -> ctypes.CDLL:
    library = ctypes.CDLL(None, use_errno=True)
    library.syscall.restype = ctypes.c_long
    return library
