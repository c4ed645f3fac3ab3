"""Measures the servers beside each other and prints the tables. Started by `run`, which prepares what it needs.

All servers of a table run at once, idle but for the one that is asked, and are asked in turns, so that whatever else
the machine does falls on all of them; figures are medians over the turns. A rate says little where other programs run:
the CPU time of a query, and what is over the echo's, says more, and the instructions of a query do not waver at all.
"""

import argparse
import contextlib
import glob
import os
import platform
import shutil
import socket
import statistics
import subprocess
import sys
import time

from servers import CLIENT_CPU, PROGRAMS, SERVER_CPU, SERVERS, UPDATED, Server, available, pinned
from zone import address, question, update, write_questions, write_zone

WORK = os.environ["WORK"]
# Sockets, and questions under way on each. Those of TCP are what dnsperf has with 20 connections and 500 in all.
UDP_LOAD, TCP_LOAD = (4, 64), (20, 25)
# What valgrind watches: the difference between two runs is what the questions between them took.
FEW, MANY = 2_000, 52_000


def load(proto, server, seconds, questions, count=None, shape=None):
    """Asks the server; gives the client's figures and the server's CPU time."""
    sockets, window = shape or (TCP_LOAD if proto == "tcp" else UDP_LOAD)
    command = [f"{WORK}/load", proto, str(server.port), str(seconds), str(sockets), str(window), f"{WORK}/{questions}"]
    before = server.cpu_seconds()
    asked = subprocess.run(
        [*pinned(CLIENT_CPU), *command, *([str(count)] if count else [])], capture_output=True, text=True
    )
    if asked.returncode != 0:
        raise RuntimeError(f"{server.name}: {asked.stderr}")
    words = asked.stdout.split()
    figures = dict(zip(words[::2], map(float, words[1::2])))
    figures["cpu_us"] = 1e6 * (server.cpu_seconds() - before) / max(figures["replies"], 1)
    return figures


def check(server, questions, figures):
    """Fast and wrong is not fast."""
    if server.name == "echo":
        return
    right, none = figures["right"] / figures["replies"], figures["nxdomain"] / figures["replies"]
    wanted = (1.0, 0.0) if questions == "hit" else (0.9, 0.1)
    if abs(right - wanted[0]) > 0.01 or abs(none - wanted[1]) > 0.01:
        raise RuntimeError(f"{server.name} answers wrongly: {figures}")


def side_by_side(names, proto, questions, options):
    """Medians for each server."""
    runs = {name: [] for name in names}
    with contextlib.ExitStack() as stack:
        servers = []
        for name in names:
            command = pinned(SERVER_CPU)
            servers.append(stack.enter_context(Server(name, WORK, f"{WORK}/small.zone", command)))
            servers[-1].wait()
        for server in servers:
            load(proto, server, 0.5, questions)
        for _ in range(options.turns):
            for server in servers:
                figures = load(proto, server, options.seconds, questions)
                check(server, questions, figures)
                runs[server.name].append(figures)
    return {name: {key: statistics.median(run[key] for run in of) for key in of[0]} for name, of in runs.items()}


def table(title, columns, rows):
    """Prints a table in Markdown, as wide as it must be."""
    print(f"\n{title}\n")
    lines = [columns, *rows]
    widths = [max(len(line[at]) for line in lines) for at in range(len(columns))]
    for number, line in enumerate(lines):
        cells = [text.ljust(width) if at == 0 else text.rjust(width) for at, (text, width) in enumerate(zip(line, widths))]
        print("| " + " | ".join(cells) + " |")
        if number == 0:
            print("|" + "|".join("-" * (width + 1) + (":" if at else "-") for at, width in enumerate(widths)) + "|")
    sys.stdout.flush()


def udp_table(title, names, questions, options):
    medians = side_by_side(names, "udp", questions, options)
    ceiling = medians["echo"]
    rows = [
        [
            name,
            f"{it['qps']:,.0f}",
            f"{it['qps'] / ceiling['qps']:.3f}",
            f"{it['cpu_us']:.2f}",
            f"{it['cpu_us'] - ceiling['cpu_us']:+.2f}" if name != "echo" else "",
            f"{it['p99_us']:,.0f}",
            f"{100 * it['lost'] / it['sent']:.2f}",
        ]
        for name, it in medians.items()
    ]
    table(title, ["server", "answers/s", "of echo", "CPU us/query", "over echo", "p99 us", "lost %"], rows)


def tcp_table(names, options):
    medians = side_by_side([name for name in names if name != "echo"], "tcp", "hit", options)
    rows = [[name, f"{it['qps']:,.0f}", f"{it['cpu_us']:.2f}", f"{it['p99_us']:,.0f}"] for name, it in medians.items()]
    sockets, window = TCP_LOAD
    title = f"TCP, {sockets} connections, {window} questions under way on each"
    table(title, ["server", "answers/s", "CPU us/query", "p99 us"], rows)


def instructions(name, questions):
    """User instructions that a query takes."""
    totals = []
    for count in (FEW, MANY):
        for old in glob.glob(f"{WORK}/instructions.*"):
            os.remove(old)
        watch = [*pinned(SERVER_CPU), "valgrind", "-q", "--tool=cachegrind", "--cache-sim=no", "--trace-children=yes"]
        watch.append(f"--cachegrind-out-file={WORK}/instructions.%p")
        with Server(name, WORK, f"{WORK}/small.zone", watch) as server:
            server.wait()
            load("udp", server, 600, questions, count=count, shape=(1, 64))
        total = 0
        for path in glob.glob(f"{WORK}/instructions.*"):
            with open(path) as out:
                total += sum(int(line.split()[1]) for line in out if line.startswith("summary:"))
        totals.append(total)
    return (totals[1] - totals[0]) / (MANY - FEW)


def instruction_table(names):
    rows = [[name, *(f"{instructions(name, questions):,.0f}" for questions in ("hit", "mix", "none"))] for name in names]
    table("User instructions a query", ["server", "addresses", "mix", "NXDOMAIN"], rows)


def large_table(names, options):
    """Load time and memory of a large zone, each server alone."""
    rows = []
    for addresses in options.large_addresses:
        zone = f"{WORK}/large.zone"
        write_zone(zone, options.large, addresses)
        for name in names:
            if name == "echo":
                continue
            loads, memories = [], []
            for _ in range(options.turns if options.turns < 3 else 3):
                with Server(name, WORK, zone, pinned(SERVER_CPU)) as server:
                    loads.append(server.wait(f"n{options.large - 1}"))
                    memories.append(server.memory_megabytes())
            rows.append([name, str(addresses), f"{statistics.median(loads):.2f}", f"{statistics.median(memories):,.0f}"])
        os.remove(zone)
    table(f"A zone of {options.large:,} names", ["server", "addresses a name", "start to answer s", "memory MB"], rows)


def update_times(server, count):
    """From sending an update to its acknowledgement, and to the first answer that has it, in milliseconds."""
    acknowledged, answered = [], []
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.connect(("127.0.0.1", server.port))
        # The first update of a zone may write all of it.
        sock.settimeout(30)
        for number in range(count):
            ask = question(f"update{number}", "AAAA")[2:]
            start = time.perf_counter()
            sock.send(update(f"update{number}", address(number, 1))[2:])
            if (code := sock.recv(4096)[3] & 15) != 0:
                raise RuntimeError(f"{server.name} refuses an update with code {code}")
            acknowledged.append(1e3 * (time.perf_counter() - start))
            while True:
                sock.send(ask)
                if sock.recv(4096)[7] > 0:
                    break
            answered.append(1e3 * (time.perf_counter() - start))
    return acknowledged, answered


def update_table(names, options):
    rows = []
    for size in options.updated_names:
        plain = f"{WORK}/to-update.zone"
        write_zone(plain, size)
        for name in (name for name in names if name in UPDATED):
            zone = f"{WORK}/updated-{name}.zone"
            shutil.copy(plain, zone)
            with Server(name, WORK, zone, pinned(SERVER_CPU), UPDATED) as server:
                server.wait()
                try:
                    acknowledged, answered = update_times(server, options.updates)
                except TimeoutError:
                    print(f"left out, no answer to an update of {size:,} names: {name}")
                    acknowledged, answered = [], []
            # The next zone has no history.
            for kept in ("peak-state", "knot-db"):
                shutil.rmtree(f"{WORK}/{kept}", ignore_errors=True)
            for journal in glob.glob(f"{zone}.*"):
                os.remove(journal)
            if not answered:
                continue
            worst = statistics.quantiles(answered, n=100)[98]
            figures = (statistics.median(acknowledged), statistics.median(answered), worst)
            rows.append([name, f"{size:,}", *(f"{it:.2f}" for it in figures)])
    columns = ["server", "names in the zone", "update -> acknowledged ms", "update -> answer ms", "p99 ms"]
    table(f"An update of one name, medians of {options.updates}", columns, rows)


def arguments():
    parser = argparse.ArgumentParser(prog="benches/dns/run", description=__doc__)
    parser.add_argument("--servers", default=",".join(SERVERS), help="which, in this order [%(default)s]")
    parser.add_argument("--tables", default="udp,mix,tcp,updates,instructions,large", help="which [%(default)s]")
    parser.add_argument("--seconds", type=float, default=2.0, help="of each turn [%(default)s]")
    parser.add_argument("--turns", type=int, default=7, help="of which medians are taken [%(default)s]")
    parser.add_argument("--names", type=int, default=40_000, help="in the zone, four addresses each [%(default)s]")
    parser.add_argument("--updates", type=int, default=300, help="one after another [%(default)s]")
    sizes = {"type": int, "nargs": "+", "default": [1_000, 40_000, 1_000_000]}
    parser.add_argument("--updated-names", help="in the zones that are updated, four addresses each", **sizes)
    parser.add_argument("--large", type=int, default=1_000_000, help="names in the large zone [%(default)s]")
    parser.add_argument("--large-addresses", type=int, nargs="+", default=[1, 4], help="of each of them [1 4]")
    return parser.parse_args()


def main():
    options = arguments()
    chosen = options.servers.split(",")
    if unknown := [name for name in chosen if name not in SERVERS]:
        sys.exit(f"no such server: {', '.join(unknown)}")
    names = [name for name in chosen if available(name)]
    if left_out := [PROGRAMS[name] for name in chosen if name not in names]:
        print(f"left out, not installed: {', '.join(left_out)}")
    write_zone(f"{WORK}/small.zone", options.names)
    write_questions(WORK, options.names)
    with open("/proc/cpuinfo") as info:
        model = next((line.split(":")[1].strip() for line in info if line.startswith("model name")), "unknown")
    print(f"{model}, Linux {platform.release()}; {options.names:,} names, {options.turns} turns of {options.seconds} s")
    with_echo = names if "echo" in names else ["echo", *names]
    for wanted in options.tables.split(","):
        match wanted:
            case "udp":
                udp_table("UDP, addresses", with_echo, "hit", options)
            case "mix":
                udp_table("UDP, 80 % addresses, 5 % SRV, 5 % TXT, 10 % NXDOMAIN", with_echo, "mix", options)
            case "tcp":
                tcp_table(names, options)
            case "updates":
                update_table(names, options)
            case "instructions":
                instruction_table(names)
            case "large":
                large_table(names, options)
            case _:
                sys.exit(f"no such table: {wanted}")


main()
