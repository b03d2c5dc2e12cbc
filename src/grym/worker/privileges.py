"""Gives up what root may do beyond other users, for good; what is left are two rights about files.

A worker that runs as root could read the environment, and with it the secrets, of the process that started it.
The kernel lets a process look into another one only if it has every capability of that one. Which files may be
written is confined elsewhere (:mod:`grym.worker.landlock`); reading is not restricted. Holds for the calling thread
and every thread and process that it starts later. Does nothing for other users: they have no such rights. Linux only.

Source of the numbers: include/uapi/linux/capability.h, include/uapi/linux/prctl.h
"""

from __future__ import annotations

import ctypes
import os
import sys
from contextlib import suppress
from pathlib import Path
from typing import Final

VERSION: Final = 0x20080522
DAC_OVERRIDE, DAC_READ_SEARCH = 1, 2  # files of other users, such as a dataset that is mounted into a container
KEPT: Final = 1 << DAC_OVERRIDE | 1 << DAC_READ_SEARCH
BOUNDING_DROP: Final = 24
LAST: Final = 63


class _Header(ctypes.Structure):
    _fields_ = (("version", ctypes.c_uint32), ("pid", ctypes.c_int))


class _Data(ctypes.Structure):
    _fields_ = (("effective", ctypes.c_uint32), ("permitted", ctypes.c_uint32), ("inheritable", ctypes.c_uint32))


def held() -> int:
    """Capabilities that this thread may use, as a mask; 0 where there are none."""
    with suppress(OSError, ValueError, IndexError):
        status = Path("/proc/thread-self/status").read_bytes()
        return int(status.split(b"CapPrm:", 1)[1].split(None, 1)[0], 16)
    return 0


def drop() -> bool:
    """Give up every capability but :data:`KEPT`; whether there were any to give up.

    Raises:
        OSError: the kernel refused, although it never has to.
    """
    before = held()
    if sys.platform != "linux" or not before & ~KEPT:
        return False
    library = ctypes.CDLL(None, use_errno=True)
    for number in range(LAST + 1):  # what a program that is started later could get back; refused beyond the last one
        if not KEPT >> number & 1:
            library.prctl(BOUNDING_DROP, number, 0, 0, 0)
    left = before & KEPT
    data = (_Data * 2)(_Data(left, left, 0), _Data(0, 0, 0))
    if library.capset(ctypes.byref(_Header(VERSION, 0)), data):
        raise OSError(ctypes.get_errno(), f"capabilities: {os.strerror(ctypes.get_errno())}")
    return True
