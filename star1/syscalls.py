"""System calls that confined programs may not make, as a seccomp filter for the kernel.

Without new processes and threads, sockets, shared memory and mounts, a program has the memory and the processor time of its
own limits, and nothing that outlives it.
"""

import platform
import struct

from star1.errors import SettingError

# linux/filter.h, linux/seccomp.h, linux/audit.h
LOAD, EQUAL, AT_LEAST, RETURN = 0x20, 0x15, 0x35, 0x06
ALLOW, KILL, REFUSE = 0x7FFF0000, 0x80000000, 0x00050000
NUMBER, MACHINE = 0, 4  # places in struct seccomp_data [bytes]
EPERM, ENOSYS = 1, 38
# Numbers of the 32-bit calls that an x86-64 kernel also takes.
X32 = 0x40000000

# Of each machine: its name in audit.h, clone3, and the calls that are refused. clone3 does "not exist", so that the C library
# falls back on clone, whose refusal it reports as such.
MACHINES: dict[str, tuple[int, int, dict[str, int]]] = {
    "x86_64": (
        0xC000003E,
        435,
        {
            "clone": 56,
            "fork": 57,
            "vfork": 58,
            "socket": 41,
            "socketpair": 53,
            "ptrace": 101,
            "process_vm_readv": 310,
            "process_vm_writev": 311,
            "shmget": 29,
            "semget": 64,
            "msgget": 68,
            "mq_open": 240,
            "memfd_create": 319,
            "memfd_secret": 447,
            "mount": 165,
            "umount2": 166,
            "pivot_root": 155,
            "chroot": 161,
            "unshare": 272,
            "setns": 308,
            "open_tree": 428,
            "move_mount": 429,
            "fsopen": 430,
            "mount_setattr": 442,
            "bpf": 321,
            "perf_event_open": 298,
            "userfaultfd": 323,
            "io_uring_setup": 425,
            "keyctl": 250,
            "add_key": 248,
            "request_key": 249,
            "open_by_handle_at": 304,
            "kexec_load": 246,
            "init_module": 175,
            "finit_module": 313,
            "inotify_init": 253,
            "inotify_init1": 294,
            "fanotify_init": 300,
        },
    ),
    "aarch64": (
        0xC00000B7,
        435,
        {
            "clone": 220,
            "socket": 198,
            "socketpair": 199,
            "ptrace": 117,
            "process_vm_readv": 270,
            "process_vm_writev": 271,
            "shmget": 194,
            "semget": 190,
            "msgget": 186,
            "mq_open": 180,
            "memfd_create": 279,
            "memfd_secret": 447,
            "mount": 40,
            "umount2": 39,
            "pivot_root": 41,
            "chroot": 51,
            "unshare": 97,
            "setns": 268,
            "open_tree": 428,
            "move_mount": 429,
            "fsopen": 430,
            "mount_setattr": 442,
            "bpf": 280,
            "perf_event_open": 241,
            "userfaultfd": 282,
            "io_uring_setup": 425,
            "keyctl": 219,
            "add_key": 217,
            "request_key": 218,
            "open_by_handle_at": 265,
            "kexec_load": 104,
            "init_module": 105,
            "finit_module": 273,
            "inotify_init1": 26,
            "fanotify_init": 262,
        },
    ),
}


def _step(code: int, value: int, yes: int = 0, no: int = 0) -> bytes:
    """One instruction (struct sock_filter); `yes` and `no` are how many of the next ones a comparison skips."""
    return struct.pack("=HBBI", code, yes, no, value)


def program(machine: str | None = None) -> bytes:
    """The filter for a machine, this one unless named, as `bwrap --seccomp` reads it.

    Raises:
        SettingError: a machine whose calls are not listed here.
    """
    name = machine or platform.machine()
    if name not in MACHINES:
        raise SettingError("sandbox", f"a machine of type {name}", " or ".join(MACHINES))
    audit, clone3, refused = MACHINES[name]
    steps = [_step(LOAD, MACHINE), _step(EQUAL, audit, 1), _step(RETURN, KILL), _step(LOAD, NUMBER)]
    steps += [_step(AT_LEAST, X32, 0, 1), _step(RETURN, REFUSE | ENOSYS)]
    steps += [_step(EQUAL, clone3, 0, 1), _step(RETURN, REFUSE | ENOSYS)]
    for number in refused.values():
        steps += [_step(EQUAL, number, 0, 1), _step(RETURN, REFUSE | EPERM)]
    return b"".join([*steps, _step(RETURN, ALLOW)])
