"""The zones that all servers serve, and the questions that all of them are asked."""

import ipaddress
import random
import struct

ZONE = "bench.peak"
TYPES = {"AAAA": 28, "SRV": 33, "TXT": 16}
ADDRESSES = 4
# One in so many names has a service and a text beside it.
SPARSE = 100


def address(name, number):
    return ipaddress.IPv6Address((0xFD00 << 112) | (name << 16) | number)


def write_zone(path, names, addresses=ADDRESSES):
    """A zone of so many names, each with so many addresses, in the plainest form of a zone file."""
    with open(path, "w") as out:
        out.write(f"$ORIGIN {ZONE}.\n$TTL 30\n@ IN SOA ns1 admin 1 3600 600 86400 30\n")
        out.write("@ IN NS ns1\n@ IN NS ns2\nns1 IN A 127.0.0.1\nns2 IN A 127.0.0.1\n")
        for name in range(names):
            for number in range(addresses):
                out.write(f"n{name} IN AAAA {address(name, number)}\n")
        for name in range(0, names, SPARSE):
            for server in range(3):
                out.write(f"_http._tcp.s{name} IN SRV 10 {server} 8080 n{name + server}\n")
            out.write(f't{name} IN TXT "weight={name}" "zone=a"\n')


def wire(name):
    """The name as messages have it."""
    return b"".join(bytes([len(label)]) + label.encode() for label in name.split(".")) + b"\0"


def question(name, kind):
    """The message, after its length as TCP carries it."""
    message = struct.pack(">6H", 0, 0, 1, 0, 0, 0) + wire(f"{name}.{ZONE}") + struct.pack(">HH", TYPES[kind], 1)
    return struct.pack(">H", len(message)) + message


def update(name, address):
    """The message that adds an address (RFC 2136), after its length as TCP carries it."""
    zone, owner = wire(ZONE), wire(f"{name}.{ZONE}")
    head = struct.pack(">6H", 0, 5 << 11, 1, 0, 1, 0) + zone + struct.pack(">HH", 6, 1)
    message = head + owner + struct.pack(">HHIH", TYPES["AAAA"], 1, 30, 16) + address.packed
    return struct.pack(">H", len(message)) + message


def write_questions(folder, names, count=50_000):
    """`hit`: addresses of names that are there. `none`: of names that are not. `mix`: also services and texts."""
    dice = random.Random(1)

    def hit():
        return question(f"n{dice.randrange(names)}", "AAAA")

    def none():
        return question(f"x{dice.randrange(10**6)}", "AAAA")

    def mix():
        kind, sparse = dice.random(), dice.randrange(0, names, SPARSE)
        if kind < 0.80:
            return hit()
        if kind < 0.85:
            return question(f"_http._tcp.s{sparse}", "SRV")
        if kind < 0.90:
            return question(f"t{sparse}", "TXT")
        return none()

    for name, make in (("hit", hit), ("mix", mix), ("none", none)):
        with open(f"{folder}/{name}", "wb") as out:
            for _ in range(count):
                out.write(make())
