"""Kernel programs of somebody else, for tests: droppers and a counter, in a few instructions each.

    bpf.py drop WHERE DEVICE PORT ...          packets to this UDP port, while standard input is open
    bpf.py count DEVICE                        everything that comes in; the count is written when a line comes
    bpf.py programs DEVICE                     how many programs are linked to it, ingress and egress
    bpf.py cgroup FOLDER PORT ADDRESS COUNT    sends so many datagrams out of a control group that may send none

WHERE is ingress or egress, with -first, -last (TCX links) or -filter (a filter of the clsact qdisc, by `tc`).
A listed WHERE DEVICE PORT may be followed by more of them. Forms that stay say `ready`.
"""

import ctypes
import os
import platform
import socket
import struct
import subprocess
import sys
import tempfile

MAP_CREATE, MAP_LOOKUP, PROG_LOAD, OBJ_PIN, PROG_ATTACH, PROG_QUERY, LINK_CREATE = 0, 1, 5, 6, 8, 16, 28
SCHED_CLS, CGROUP_SKB = 3, 8
CGROUP_EGRESS, TCX = 1, {"ingress": 46, "egress": 47}
BEFORE, AFTER = 1 << 3, 1 << 4
# What programs of tc answer, and those of control groups.
NEXT, DROP, REFUSE = -1, 2, 0
# Offsets from here on count from the network header.
NETWORK = -0x100000

libc = ctypes.CDLL(None, use_errno=True)


def bpf(command, form, *values):
    """Answers what the call does, and the attributes as the kernel left them."""
    attributes = ctypes.create_string_buffer(struct.pack(form, *values), 128)
    number = {"x86_64": 321, "aarch64": 280}[platform.machine()]
    done = libc.syscall(number, command, attributes, 128)
    if done < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()), f"bpf command {command}")
    return done, attributes.raw


def instruction(code, registers=0, offset=0, value=0):
    return struct.pack("<BBhi", code, registers, offset, value)


def load(kind, instructions):
    code, licence = ctypes.create_string_buffer(b"".join(instructions)), ctypes.create_string_buffer(b"GPL")
    addresses = ctypes.addressof(code), ctypes.addressof(licence)
    return bpf(PROG_LOAD, "=IIQQIIQII", kind, (len(code) - 1) // 8, *addresses, 0, 0, 0, 0, 0)[0]


def answer(value):
    return [instruction(0xB7, value=value), instruction(0x95)]


def dropper(port):
    """For UDP and TCP packets to this port, IPv4 without options or IPv6 without extensions."""
    return load(SCHED_CLS, [
        instruction(0xBF, 0x16),                    # r6 = r1: the packet
        instruction(0x30, value=NETWORK),           # r0 = first byte
        instruction(0x77, value=4),                 # r0 >>= 4
        instruction(0x15, offset=2, value=6),       # version 6?
        instruction(0x28, value=NETWORK + 22),      # r0 = destination port
        instruction(0x05, offset=1),
        instruction(0x28, value=NETWORK + 42),
        instruction(0x55, offset=2, value=port),    # another?
        *answer(DROP), *answer(NEXT),
    ])


def counter(counts):
    return load(SCHED_CLS, [
        instruction(0x62, 0x0A, -4, 0),             # key 0, on the stack
        instruction(0xBF, 0xA2), instruction(0x07, 0x02, value=-4),
        instruction(0x18, 0x11, value=counts), instruction(0),
        instruction(0x85, value=1),                 # map_lookup_elem
        instruction(0x15, offset=2),                # none?
        instruction(0xB7, 0x01, value=1), instruction(0xDB, 0x10),
        *answer(NEXT),
    ])


def attach(program, where, device):
    direction, place = where.split("-")
    if place == "filter":
        folder = tempfile.mkdtemp()
        subprocess.run(["mount", "-t", "bpf", "bpf", folder], check=True)
        path = ctypes.create_string_buffer(f"{folder}/program".encode())
        bpf(OBJ_PIN, "=QII", ctypes.addressof(path), program, 0)
        subprocess.run(["tc", "qdisc", "add", "dev", device, "clsact"], check=False, stderr=subprocess.DEVNULL)
        subprocess.run(
            ["tc", "filter", "add", "dev", device, direction, "bpf", "direct-action", "object-pinned",
             f"{folder}/program"], check=True)
        subprocess.run(["umount", folder], check=True)
        os.rmdir(folder)
    else:
        flags = BEFORE if place == "first" else AFTER
        bpf(LINK_CREATE, "=IIIIIIQ", program, socket.if_nametoindex(device), TCX[direction], flags, 0, 0, 0)


def drop(*places):
    for where, device, port in zip(*[iter(places)] * 3):
        attach(dropper(int(port)), where, device)
    print("ready", flush=True)
    sys.stdin.read()


def count(device):
    # An array of one number of eight bytes.
    counts, _ = bpf(MAP_CREATE, "=IIIII", 2, 4, 8, 1, 0)
    attach(counter(counts), "ingress-first", device)
    print("ready", flush=True)
    sys.stdin.readline()
    key, value = ctypes.c_uint32(0), ctypes.c_uint64(0)
    bpf(MAP_LOOKUP, "=IIQQQ", counts, 0, ctypes.addressof(key), ctypes.addressof(value), 0)
    print(value.value, flush=True)


def programs(device):
    form = "=IIIIQI"
    for hook in TCX.values():
        _, answered = bpf(PROG_QUERY, form, socket.if_nametoindex(device), hook, 0, 0, 0, 0)
        print(struct.unpack_from(form, answered)[-1])


def cgroup(folder, port, address, number):
    os.makedirs(folder)
    subprocess.run(["mount", "-t", "cgroup2", "none", folder], check=True)
    group = f"{folder}/flowtap-test-{os.getpid()}"
    os.mkdir(group)
    home = next(line[3:].strip() for line in open("/proc/self/cgroup") if line.startswith("0::"))

    def enter(place):
        with open(f"{place}/cgroup.procs", "w") as processes:
            processes.write(str(os.getpid()))

    try:
        target = os.open(group, os.O_RDONLY)
        bpf(PROG_ATTACH, "=IIII", target, load(CGROUP_SKB, answer(REFUSE)), CGROUP_EGRESS, 0)
        enter(group)
        sender = socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET, socket.SOCK_DGRAM)
        sender.bind(("", 4000))
        refused = 0
        for _ in range(int(number)):
            try:
                sender.sendto(bytes(100), (address, int(port)))
            except PermissionError:
                refused += 1
        assert refused == int(number), f"{refused} were refused"
    finally:
        enter(folder + home)
        os.rmdir(group)
    print("ready", flush=True)


{"drop": drop, "count": count, "programs": programs, "cgroup": cgroup}[sys.argv[1]](*sys.argv[2:])
