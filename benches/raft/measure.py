"""Measures the groups beside each other and prints the tables. Started by `run`, which prepares what it needs.

The groups run at once, and are asked in turns, so that whatever else the machine does falls on both; figures are medians
over the turns. A rate says little where other programs run; the CPU time of a write says more.
"""

import argparse
import ipaddress
import os
import platform
import re
import statistics
import subprocess
import threading
import time

from groups import WORK, ZONE, Client, Etcd, Peak

HERE = os.path.dirname(os.path.abspath(__file__))


def floor(abreast, count=2000, octets=4096):
    """Milliseconds that the disk itself takes for each of so many small writes in place, `abreast` files at a time."""
    times = []

    def sync(at):
        with open(f"{WORK}/floor-{at}", "wb", buffering=0) as file:
            # As in a log that was filled with zeros ahead: neither the file's length nor its blocks change.
            file.write(bytes(octets * count))
            os.fsync(file.fileno())
            for number in range(count):
                start = time.perf_counter()
                os.pwrite(file.fileno(), b"x" * octets, octets * number)
                os.fdatasync(file.fileno())
                times.append(1e3 * (time.perf_counter() - start))
        os.unlink(file.name)

    threads = [threading.Thread(target=sync, args=(at,)) for at in range(abreast)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return times


def at_once(group, node, clients, seconds):
    """Writes a second of so many clients, latencies in ms, CPU time of the nodes in us a write.

    wrk adds to what it has measured what it takes to be missing: for a write that took long, those that its client would have made
    meanwhile. So one pause of 140 ms in five seconds is a p99 of 90 ms, although one write in a thousand met it; the longest is measured.
    """
    before, start = group.cpu_seconds(), time.monotonic()
    told = subprocess.run(
        ["wrk", "-t1", f"-c{clients}", f"-d{seconds}s", "--latency", "-s", f"{HERE}/{group.script}",
         f"http://127.0.0.1:{group.port(node)}{group.path}"],
        capture_output=True, text=True, check=True,
    ).stdout
    if "Non-2xx" in told or "Socket errors" in told:
        raise RuntimeError(f"{group.name}: {told}")
    rate = float(re.search(r"Requests/sec:\s+([\d.]+)", told).group(1))
    scale = {"us": 1e-3, "ms": 1, "s": 1e3}
    latency = lambda share: next(
        float(value) * scale[unit] for value, unit in re.findall(rf"{share}%\s+([\d.]+)(us|ms|s)", told))
    longest = re.search(r"Latency\s+\S+\s+\S+\s+([\d.]+)(us|ms|s)", told)
    writes = rate * (time.monotonic() - start)
    return {"rate": rate, "p50": latency(50), "p99": latency(99),
            "longest": float(longest.group(1)) * scale[longest.group(2)],
            "cpu": 1e6 * (group.cpu_seconds() - before) / writes}


def one_by_one(group, node, count):
    """Milliseconds of each write of one client."""
    client, times = Client(group, node), []
    for at in range(count):
        start = time.perf_counter()
        if not client.put(f"s{at % 500}", f"fd00::{at // 500:x}:{at % 500:x}"):
            raise RuntimeError(f"{group.name}: a write was not acknowledged")
        times.append(1e3 * (time.perf_counter() - start))
    return times


def failover(group):
    """Milliseconds from the leader's death to the first acknowledged write."""
    leader = group.leader()
    stop, killed, first = threading.Event(), [None], [None]

    def write(node):
        client, at = Client(group, node), 0
        while not stop.is_set():
            at += 1
            sent = time.perf_counter()
            # What was sent before the death may have been acknowledged by the dead.
            if client.put("f", f"fd00::{node}:{at % 65536:x}", 0.2) and killed[0] and sent > killed[0]:
                first[0] = min(first[0] or 1e9, time.perf_counter())
            time.sleep(0.001)

    writers = [threading.Thread(target=write, args=(node,)) for node in group.processes if node != leader]
    for writer in writers:
        writer.start()
    time.sleep(1.5)
    killed[0] = time.perf_counter()
    group.kill(leader)
    end = time.monotonic() + 20
    while first[0] is None and time.monotonic() < end:
        time.sleep(0.001)
    time.sleep(0.3)
    stop.set()
    for writer in writers:
        writer.join()
    group.start(leader)
    group.ready()
    if first[0] is None:
        raise RuntimeError(f"{group.name}: no write after the leader's death")
    return 1e3 * (first[0] - killed[0])


def seen_elsewhere(peak, count):
    """Milliseconds from sending a write at one node to its DNS answer at another."""
    client, times = Client(peak, 0), []
    for at in range(count):
        address = ipaddress.ip_address(f"fd00:1::{at:x}")
        start = time.perf_counter()
        writer = threading.Thread(target=client.put, args=("seen", str(address)))
        writer.start()
        while peak.answer(1, "seen") != address.packed:
            if time.perf_counter() - start > 5:
                raise RuntimeError("the write is not seen elsewhere")
        times.append(1e3 * (time.perf_counter() - start))
        writer.join()
    return times


def queries_beside_writes(peak, seconds, turns):
    """Answers a second of one node, without writes and with some 5,000 writes a second; and how many those were."""
    questions = f"{WORK}/questions"
    subprocess.run(["python3", "-B", "-c", QUESTIONS, questions], check=True)
    figures, writes = {False: [], True: []}, []
    for _ in range(turns):
        for busy in (False, True):
            writing = subprocess.Popen(
                ["wrk", "-t1", "-c150", f"-d{seconds + 1}s", "-s", f"{HERE}/peak.lua",
                 f"http://127.0.0.1:{peak.port(peak.leader())}{peak.path}", "--", "28"],
                stdout=subprocess.PIPE, text=True) if busy else None
            time.sleep(0.3)
            told = subprocess.run([f"{WORK}/load", "udp", str(peak.dns_port(1)), str(seconds), "4", "64", questions],
                                  capture_output=True, text=True, check=True).stdout.split()
            figures[busy].append(dict(zip(told[::2], map(float, told[1::2])))["replies"] / seconds)
            if writing:
                writes.append(float(re.search(r"Requests/sec:\s+([\d.]+)", writing.communicate()[0]).group(1)))
    return figures, statistics.median(writes)


# The form that benches/dns/load.c reads: two octets of length, and the message.
QUESTIONS = """
import struct, sys
with open(sys.argv[1], 'wb') as out:
    for n in range(2000):
        name = b''.join(bytes([len(l)]) + l for l in (b'n%d' % n, b'bench', b'peak')) + b'\\0'
        message = struct.pack('>6H', n, 0, 1, 0, 0, 0) + name + struct.pack('>2H', 28, 1)
        out.write(struct.pack('>H', len(message)) + message)
"""


def median(runs, key):
    return statistics.median(run[key] for run in runs)


def share(times, of):
    return sorted(times)[min(len(times) - 1, int(len(times) * of))]


def row(what, etcd, peak):
    print(f"| {what} | {etcd} | {peak} |")


def main():
    parser = argparse.ArgumentParser(description="Peak's registry beside etcd")
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--seconds", type=int, default=5, help="of one turn of many clients")
    parser.add_argument("--sequential", type=int, default=300, help="writes of one client in a turn")
    parser.add_argument("--failovers", type=int, default=5)
    parser.add_argument("--no-queries", action="store_true", help="without the questions beside writes")
    options = parser.parse_args()
    place = subprocess.run(["stat", "-f", "-c", "%T", WORK], capture_output=True, text=True).stdout.strip()
    load = os.getloadavg()[0]
    print(f"{platform.machine()}, {os.cpu_count()} cores, Linux {platform.release()}, {place}, load {load:.1f}\n")
    for abreast in (1, 3):
        times = floor(abreast)
        print(f"the disk itself, 4 KiB synced, {abreast} at a time, p50 / p99 / max, ms: "
              f"{share(times, .5):.2f} / {share(times, .99):.2f} / {max(times):.1f}\n")
    with Etcd() as etcd, Peak() as peak:
        many = {group.name: {count: [] for count in (64, 256)} for group in (etcd, peak)}
        follower, single, gaps = [], {"etcd": [], "peak": []}, {"etcd": [], "peak": []}
        for _ in range(options.turns):
            for group in (etcd, peak):
                leader = group.leader()
                single[group.name] += one_by_one(group, leader, options.sequential)
                for count, runs in many[group.name].items():
                    runs.append(at_once(group, leader, count, options.seconds))
                if group is peak:
                    other = next(node for node in range(3) if node != leader)
                    follower.append(at_once(group, other, 64, options.seconds))
        for _ in range(options.failovers):
            for group in (etcd, peak):
                gaps[group.name].append(failover(group))
        seen = seen_elsewhere(peak, 200)
        print("| | etcd | Peak |\n|---|--:|--:|")
        for count in (64, 256):
            figures = {name: many[name][count] for name in many}
            row(f"writes/s, {count} clients at the leader",
                *(f"{median(figures[name], 'rate'):,.0f}" for name in ("etcd", "peak")))
            row("p50 / p99 / longest of them, ms",
                *(" / ".join(f"{median(figures[name], of):.1f}" for of in ("p50", "p99", "longest"))
                  for name in ("etcd", "peak")))
            row("CPU of all nodes, us a write",
                *(f"{median(figures[name], 'cpu'):.0f}" for name in ("etcd", "peak")))
        row("writes/s, 64 clients at a follower", "", f"{median(follower, 'rate'):,.0f}")
        row("one client, p50 / p99, ms",
            *(f"{share(single[name], .5):.2f} / {share(single[name], .99):.2f}" for name in ("etcd", "peak")))
        row("leader killed to first write, ms",
            *(f"{statistics.median(gaps[name]):.0f} ({min(gaps[name]):.0f}-{max(gaps[name]):.0f})"
              for name in ("etcd", "peak")))
        row("write at one node to answer at another, p50 / p99, ms", "",
            f"{share(seen, .5):.2f} / {share(seen, .99):.2f}")
        row("largest node, MB", f"{etcd.resident_mb():.0f}", f"{peak.resident_mb():.0f}")
        if not options.no_queries:
            figures, writes = queries_beside_writes(peak, options.seconds, options.turns)
            ratio = [with_writes / without for without, with_writes in zip(figures[False], figures[True])]
            row(f"answers/s beside {writes:,.0f} writes/s, of those without", "", f"{statistics.median(ratio):.2f}")


if __name__ == "__main__":
    main()
