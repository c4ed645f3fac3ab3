"""The servers that are measured: how each is told to serve one zone on one core, and what its processes take."""

import os
import shutil
import signal
import socket
import struct
import subprocess
import time

from zone import ZONE, question

SERVER_CPU, CLIENT_CPU = "0", "1"
# On a machine that does other things as well; the kernel keeps 5 % of a core for those.
REAL_TIME = ["chrt", "-f", "1"] if os.geteuid() == 0 and shutil.which("chrt") else []
TICKS = os.sysconf("SC_CLK_TCK")


def pinned(cpu):
    return [*REAL_TIME, "taskset", "-c", cpu]


def peak(work, zone, port):
    os.environ["FUNICULAR_WORKERS"] = "1"
    os.environ["FUNICULAR_LOG_LEVEL"] = "warn"
    return [os.environ["FUNICULAR"], "peak", "--zone", f"{ZONE}={zone}", "--listen", f"127.0.0.1:{port}"]


def nsd(work, zone, port):
    write(f"{work}/nsd.conf", f"""server:
  ip-address: 127.0.0.1@{port}
  server-count: 1
  tcp-count: 100
  username: ""
  chroot: ""
  zonesdir: "{work}"
  database: ""
  pidfile: "{work}/nsd.pid"
  xfrdfile: "{work}/nsd.xfrd"
  zonelistfile: "{work}/nsd.zonelist"
  xfrdir: "{work}"
  minimal-responses: yes
  rrl-ratelimit: 0
remote-control:
  control-enable: no
zone:
  name: {ZONE}
  zonefile: "{zone}"
""")
    return ["nsd", "-d", "-c", f"{work}/nsd.conf"]


def knot(work, zone, port):
    for folder in ("knot-run", "knot-db"):
        os.makedirs(f"{work}/{folder}", exist_ok=True)
    write(f"{work}/knot.conf", f"""server:
  listen: 127.0.0.1@{port}
  rundir: {work}/knot-run
  udp-workers: 1
  tcp-workers: 1
  background-workers: 1
database:
  storage: {work}/knot-db
log:
  - target: stderr
    any: error
zone:
  - domain: {ZONE}
    file: {zone}
    zonefile-sync: -1
    journal-content: none
    semantic-checks: off
""")
    return ["knotd", "-c", f"{work}/knot.conf"]


def bind(work, zone, port):
    write(f"{work}/named.conf", f"""options {{
  directory "{work}"; listen-on port {port} {{ 127.0.0.1; }}; listen-on-v6 {{ none; }}; recursion no;
  minimal-responses yes; pid-file none; session-keyfile "{work}/named.key"; dnssec-validation no;
}};
controls {{ }};
logging {{ category default {{ null; }}; }};
zone "{ZONE}" {{ type primary; file "{zone}"; }};
""")
    return ["named", "-f", "-n", "1", "-c", f"{work}/named.conf"]


def pdns(work, zone, port):
    modules = next((f"/usr/lib/{it}/pdns" for it in os.listdir("/usr/lib") if os.path.isdir(f"/usr/lib/{it}/pdns")), "")
    write(f"{work}/pdns-zones.conf", f'options {{ directory "{work}"; }};\nzone "{ZONE}" {{ type master; file "{zone}"; }};\n')
    write(f"{work}/pdns.conf", f"""launch=bind
bind-config={work}/pdns-zones.conf
local-address=127.0.0.1
local-port={port}
socket-dir={work}
module-dir={modules}
receiver-threads=1
distributor-threads=1
max-tcp-connections-per-client=100
cache-ttl=20
query-cache-ttl=20
negquery-cache-ttl=20
reuseport=no
api=no
daemon=no
guardian=no
loglevel=3
""")
    return ["pdns_server", f"--config-dir={work}"]


def echo(work, _zone, port):
    # As many octets as the addresses of an answer take.
    return [f"{work}/echo", str(port), "112"]


def peak_updated(work, zone, port):
    write(f"{work}/peak.yaml", f"""listen: 127.0.0.1:{port}
workers: 1
state: {work}/peak-state
log: {{ level: warn }}
zones:
  - {{ name: {ZONE}, file: "{zone}", allow_update: [{{ prefix: 127.0.0.0/8 }}] }}
""")
    return [os.environ["FUNICULAR"], "peak", "--config", f"{work}/peak.yaml"]


def knot_updated(work, zone, port):
    command = knot(work, zone, port)
    with open(f"{work}/knot.conf") as written:
        text = written.read()
    text = text.replace("zone:\n", "acl:\n  - id: local\n    address: 127.0.0.0/8\n    action: update\nzone:\n")
    write(f"{work}/knot.conf", text.replace("    journal-content: none\n", "    journal-content: changes\n    acl: local\n"))
    return command


def bind_updated(work, zone, port):
    command = bind(work, zone, port)
    with open(f"{work}/named.conf") as written:
        text = written.read()
    write(f"{work}/named.conf", text.replace("type primary;", "type primary; allow-update { 127.0.0.0/8; };"))
    return command


SERVERS = {"echo": echo, "peak": peak, "nsd": nsd, "knot": knot, "bind": bind, "pdns": pdns}
# Those that take updates, each kept on its disk before it is acknowledged.
UPDATED = {"peak": peak_updated, "knot": knot_updated, "bind": bind_updated}
PROGRAMS = {"nsd": "nsd", "knot": "knotd", "bind": "named", "pdns": "pdns_server"}


def available(name):
    return name not in PROGRAMS or shutil.which(PROGRAMS[name]) is not None


def write(path, text):
    with open(path, "w") as out:
        out.write(text)


def free_port():
    """A port that is free for UDP and TCP."""
    while True:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as udp, socket.socket() as tcp:
            udp.bind(("127.0.0.1", 0))
            try:
                tcp.bind(udp.getsockname())
            except OSError:
                continue
            return udp.getsockname()[1]


class Server:
    """A server that is running: from its start to the end of the `with` block."""

    def __init__(self, name, work, zone, before=(), made=SERVERS):
        self.port = free_port()
        self.name = name
        command = [*before, *made[name](work, zone, self.port)]
        self.errors = open(f"{work}/{name}.err", "w")
        self.started = time.monotonic()
        self.process = subprocess.Popen(
            command, stdout=self.errors, stderr=self.errors, stdin=subprocess.DEVNULL, start_new_session=True
        )

    def __enter__(self):
        return self

    def __exit__(self, *_):
        # Its own session, so its whole group is ours.
        for sig in (signal.SIGTERM, signal.SIGKILL):
            try:
                os.killpg(self.process.pid, sig)
                self.process.wait(30)
            except (ProcessLookupError, subprocess.TimeoutExpired):
                continue
            break
        self.errors.close()

    def wait(self, name="n0", most=600.0):
        """Waits until the name's addresses are answered; gives the seconds since the start."""
        ask = question(name, "AAAA")[2:]
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
            sock.connect(("127.0.0.1", self.port))
            sock.settimeout(0.005)
            while time.monotonic() - self.started < most:
                if self.process.poll() is not None:
                    break
                try:
                    sock.send(struct.pack(">H", 7) + ask[2:])
                    reply = sock.recv(4096)
                    if self.name == "echo" or (reply[3] & 15 == 0 and reply[6:8] != b"\0\0"):
                        return time.monotonic() - self.started
                    time.sleep(0.005)
                except (TimeoutError, ConnectionRefusedError):
                    time.sleep(0.002)
        with open(self.errors.name) as errors:
            raise RuntimeError(f"{self.name} does not answer:\n{errors.read()[-2000:]}")

    def processes(self):
        """Its process and all below it."""
        children = {}
        for entry in filter(str.isdigit, os.listdir("/proc")):
            try:
                with open(f"/proc/{entry}/stat") as stat:
                    parent = int(stat.read().rsplit(")", 1)[1].split()[1])
            except OSError:
                continue
            children.setdefault(parent, []).append(int(entry))
        found, todo = [], [self.process.pid]
        while todo:
            found.append(todo.pop())
            todo += children.get(found[-1], [])
        return found

    def cpu_seconds(self):
        """What its threads have run, those that have ended included."""
        ticks = 0
        for process in self.processes():
            with open(f"/proc/{process}/stat") as stat:
                ticks += sum(map(int, stat.read().rsplit(")", 1)[1].split()[11:13]))
        return ticks / TICKS

    def memory_megabytes(self):
        """What its processes hold, shared pages divided among those that share them (PSS)."""
        total = 0
        for process in self.processes():
            with open(f"/proc/{process}/smaps_rollup") as rollup:
                total += sum(int(line.split()[1]) for line in rollup if line.startswith("Pss:"))
        return total / 1024
