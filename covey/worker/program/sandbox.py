"""Takes from the worker, before any code of a task is imported, what it has no business with: folders, rights, memory.

A folder is hidden by a mount of nothing over it, in namespaces of the worker's own (user_namespaces(7)); where the
system does not allow those (many containers), by Landlock (landlock(7)), which can only allow: everything but the
folders on the way to the hidden ones is allowed as it is at the worker's start, so that what is made beside them later
cannot be read until the worker's next start. Linux only.
"""

from __future__ import annotations

import ctypes
import os
import resource
from collections.abc import Iterable, Sequence
from pathlib import Path

NAMESPACES, LANDLOCK, NOTHING = "namespaces", "Landlock", ""
_CLONE_NEWNS, _CLONE_NEWUSER = 0x20000, 0x10000000
_MS_RDONLY, _MS_NOSUID, _MS_NODEV, _MS_NOEXEC, _MS_REC, _MS_SLAVE = 1, 2, 4, 8, 1 << 14, 1 << 19
_PR_SET_NO_NEW_PRIVS, _PR_CAPBSET_DROP = 38, 24
_CAPABILITY_VERSION_3 = 0x20080522
_KEPT_OF_ROOT = (0, 1, 3, 4)
"""Of a worker that root starts: reading and writing files whoever owns them (CHOWN, DAC_OVERRIDE, FOWNER, FSETID)."""
_LAST_CAPABILITY = 63
_CREATE_RULESET, _ADD_RULE, _RESTRICT_SELF = 444, 445, 446
_RULE_PATH_BENEATH = 1
_WRITE_FILE, _READ_FILE, _READ_DIR = 1 << 1, 1 << 2, 1 << 3
TEMPORARY = "tmp"
"""Under Landlock: the worker's folder for temporary files, in its data directory."""


class _PathBeneath(ctypes.Structure):
    _pack_ = 1
    _fields_ = (("allowed", ctypes.c_uint64), ("parent", ctypes.c_int32))


class _Capabilities(ctypes.Structure):
    _fields_ = (("effective", ctypes.c_uint32), ("permitted", ctypes.c_uint32), ("inheritable", ctypes.c_uint32))


class _Header(ctypes.Structure):
    _fields_ = (("version", ctypes.c_uint32), ("pid", ctypes.c_int))


_libc = ctypes.CDLL(None, use_errno=True)


def limit_memory(size_bytes: int) -> None:
    """Let this process, and each that it starts, have so much memory of its own (RLIMIT_DATA); mapped files apart."""
    resource.setrlimit(resource.RLIMIT_DATA, (size_bytes, size_bytes))


def hide(folders: Sequence[Path], data_dir: Path) -> tuple[str, str]:
    """Make folders, as far as they exist, unreadable for this process and all that it starts; there is no way back.

    To be called before there is a second thread.

    Args:
        folders: Which.
        data_dir: The worker's own.

    Returns:
        By what they are hidden (`NOTHING`: they are not), and why not by something better.
    """
    existing = [folder.resolve() for folder in folders if folder.is_dir()]
    if not existing:
        return NAMESPACES, ""
    try:
        if _in_child(lambda: _cover(existing)):  # tried out first: there is no way back from half of it
            _cover(existing)
            return NAMESPACES, ""
        reason = "this system allows no namespaces of one's own"
    except OSError as error:
        reason = f"no namespaces ({error.strerror})"
    try:
        _allow_all_but(existing, data_dir)
        return LANDLOCK, reason
    except OSError as error:
        return NOTHING, f"{reason}, no Landlock ({error.strerror})"


def _in_child(work: object) -> bool:
    """Whether some work succeeds in a process of its own."""
    child = os.fork()
    if not child:
        try:
            work()  # type: ignore[operator]
        except BaseException:
            os._exit(1)
        os._exit(0)
    return os.waitpid(child, 0)[1] == 0


def _checked(result: int) -> int:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return result


# -- namespaces


def _cover(folders: Iterable[Path]) -> None:
    """Mount nothing over the folders, in a mount namespace of this process, and lose the right to undo it."""
    uid, gid = os.getuid(), os.getgid()
    if uid:
        _checked(_libc.unshare(_CLONE_NEWUSER | _CLONE_NEWNS))
        Path("/proc/self/setgroups").write_text("deny")
        Path("/proc/self/uid_map").write_text(f"{uid} {uid} 1")
        Path("/proc/self/gid_map").write_text(f"{gid} {gid} 1")
    else:  # files of others would be out of reach of a root that is one only in its own namespace
        _checked(_libc.unshare(_CLONE_NEWNS))
    _checked(_libc.mount(None, b"/", None, _MS_REC | _MS_SLAVE, None))
    flags = _MS_RDONLY | _MS_NOSUID | _MS_NODEV | _MS_NOEXEC
    for folder in folders:
        _checked(_libc.mount(b"none", os.fsencode(folder), b"tmpfs", flags, b"size=4k,mode=555"))
    _drop_capabilities(() if uid else _KEPT_OF_ROOT)


def _drop_capabilities(kept: Sequence[int]) -> None:
    _checked(_libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0))
    for number in range(_LAST_CAPABILITY + 1):
        if number not in kept:
            _libc.prctl(_PR_CAPBSET_DROP, number, 0, 0, 0)  # fails for numbers that this kernel does not have
    mask = sum(1 << number for number in kept)
    sets = (_Capabilities * 2)(_Capabilities(mask, mask, 0), _Capabilities(0, 0, 0))
    _checked(_libc.capset(ctypes.byref(_Header(_CAPABILITY_VERSION_3, 0)), ctypes.byref(sets)))


# -- Landlock


def _allow_all_but(folders: Sequence[Path], data_dir: Path) -> None:
    """Allow to read and write files everywhere but in these folders, and in those on the way to them."""
    own = (data_dir / TEMPORARY).resolve()
    own.mkdir(parents=True, exist_ok=True, mode=0o700)
    handled = ctypes.c_uint64(_READ_FILE | _WRITE_FILE | _READ_DIR)
    ruleset = _checked(_libc.syscall(_CREATE_RULESET, ctypes.byref(handled), ctypes.c_size_t(8), 0))
    try:
        for path in _beside(folders):
            _allow(ruleset, path)
        _drop_capabilities(() if os.getuid() else _KEPT_OF_ROOT)
        _checked(_libc.syscall(_RESTRICT_SELF, ruleset, 0))
    finally:
        os.close(ruleset)
    os.environ["TMPDIR"] = str(own)  # what is made in /tmp, say, could not be read where that is on the way


def _beside(folders: Sequence[Path]) -> Iterable[Path]:
    """Everything that is neither one of the folders nor on the way to one."""
    on_the_way = {parent for folder in folders for parent in folder.parents}
    for parent in on_the_way:
        for path in parent.iterdir():
            # A link leads to something that is allowed by its own path, or not at all.
            if path not in on_the_way and path not in folders and not path.is_symlink():
                yield path


def _allow(ruleset: int, path: Path) -> None:
    try:
        fd = os.open(path, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError:
        return  # gone meanwhile
    try:
        rights = _READ_FILE | _WRITE_FILE | (_READ_DIR if path.is_dir() else 0)
        rule = _PathBeneath(rights, fd)
        _libc.syscall(_ADD_RULE, ruleset, _RULE_PATH_BENEATH, ctypes.byref(rule), 0)
    finally:
        os.close(fd)
