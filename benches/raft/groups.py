"""Three nodes of Peak, or of etcd, on loopback: started, asked who leads, killed, started again."""

import base64
import http.client
import json
import os
import re
import signal
import socket
import struct
import subprocess
import time

WORK = os.environ["WORK"]
ZONE = "@ 300 SOA ns1 admin 1 3600 600 86400 30\n@ 300 NS ns1\nns1 300 AAAA ::1\n"


class Group:
    """Three nodes; node i has its own port for clients."""

    name = ""

    def __init__(self):
        self.processes = {}

    def __enter__(self):
        for node in range(3):
            self.start(node)
        self.ready()
        return self

    def __exit__(self, *_):
        for process in self.processes.values():
            process.kill()
            process.wait()

    def spawn(self, node, command):
        log = open(f"{WORK}/{self.name}-{node}.log", "a")
        self.processes[node] = subprocess.Popen(command, stdout=log, stderr=log)

    def kill(self, node):
        self.processes[node].send_signal(signal.SIGKILL)
        self.processes.pop(node).wait()

    def cpu_seconds(self):
        """What all nodes have used so far."""
        total = 0
        for process in self.processes.values():
            with open(f"/proc/{process.pid}/stat") as stat:
                fields = stat.read().rsplit(")", 1)[1].split()
            total += int(fields[11]) + int(fields[12])
        return total / os.sysconf("SC_CLK_TCK")

    def resident_mb(self):
        sizes = []
        for process in self.processes.values():
            with open(f"/proc/{process.pid}/status") as status:
                sizes.append(int(re.search(r"VmRSS:\s+(\d+)", status.read()).group(1)) / 1024)
        return max(sizes)

    def ready(self):
        end = time.monotonic() + 60
        while time.monotonic() < end:
            if self.leader() is not None and self.may_write():
                return
            time.sleep(0.05)
        raise RuntimeError(f"{self.name} does not get ready")

    def may_write(self):
        try:
            return all(Client(self, node).put("ready", "fd00::1", 2) for node in self.processes)
        except OSError:
            return False


class Client:
    """One client of one node, over one connection."""

    def __init__(self, group, node, timeout=5):
        self.group = group
        self.connection = http.client.HTTPConnection("127.0.0.1", group.port(node), timeout=timeout)

    def ask(self, method, path, body, kind="application/json"):
        if self.connection.sock is None:
            self.connection.connect()
            self.connection.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.connection.request(method, path, body, {"Content-Type": kind})
        answer = self.connection.getresponse()
        return answer.status, answer.read()

    def put(self, name, address, timeout=None):
        """Whether the write was acknowledged."""
        if timeout is not None:
            self.connection.timeout = timeout
            if self.connection.sock is not None:
                self.connection.sock.settimeout(timeout)
        try:
            return self.ask("POST", *self.group.write(name, address))[0] == 200
        except (OSError, http.client.HTTPException):
            self.connection.close()
            return False


class Etcd(Group):
    name = "etcd"
    script = "etcd.lua"
    path = "/v3/kv/put"

    def port(self, node):
        return 24379 + 10 * node

    def start(self, node):
        known = os.path.isdir(f"{WORK}/etcd-{node}")
        peer = lambda node: f"http://127.0.0.1:{self.port(node) + 1}"
        client = f"http://127.0.0.1:{self.port(node)}"
        self.spawn(node, [
            "etcd", "--name", f"n{node}", "--data-dir", f"{WORK}/etcd-{node}", "--log-level", "error",
            "--listen-client-urls", client, "--advertise-client-urls", client,
            "--listen-peer-urls", peer(node), "--initial-advertise-peer-urls", peer(node),
            "--initial-cluster", ",".join(f"n{node}={peer(node)}" for node in range(3)),
            "--initial-cluster-state", "existing" if known else "new",
        ])

    def leader(self):
        for node in list(self.processes):
            try:
                status, body = Client(self, node, 1).ask("POST", "/v3/maintenance/status", "{}")
                told = json.loads(body)
                if status == 200 and told["leader"] == told["header"]["member_id"]:
                    return node
            except (OSError, http.client.HTTPException, KeyError, ValueError):
                pass
        return None

    def write(self, name, address):
        key = base64.b64encode(f"{name}.bench.peak/AAAA".encode()).decode()
        value = base64.b64encode(f"30 {address}".encode()).decode()
        return self.path, json.dumps({"key": key, "value": value})


class Peak(Group):
    name = "peak"
    script = "peak.lua"
    path = "/v1/changes"

    def port(self, node):
        return 25443 + 10 * node

    def dns_port(self, node):
        return 25353 + 10 * node

    def start(self, node):
        folder = f"{WORK}/peak-{node}"
        os.makedirs(folder, exist_ok=True)
        raft = lambda node: f"127.0.0.1:{25444 + 10 * node}"
        join = f"[\"{raft(0)}\"]" if node else "[]"
        with open(f"{folder}/peak.yaml", "w") as config:
            config.write(
                f"listen: \"127.0.0.1:{self.dns_port(node)}\"\nworkers: 1\nstate: {folder}/state\n"
                f"cluster: {{ listen: \"{raft(node)}\", join: {join} }}\n"
                f"api: {{ listen: \"127.0.0.1:{self.port(node)}\" }}\nlog: {{ level: warn }}\n"
            )
        self.spawn(node, [os.environ["FUNICULAR"], "peak", "--config", f"{folder}/peak.yaml"])

    def ready(self):
        end = time.monotonic() + 30
        while time.monotonic() < end:
            try:
                if Client(self, 0).ask("PUT", "/v1/zones/bench.peak", ZONE, "text/dns")[0] in (200, 201):
                    break
            except (OSError, http.client.HTTPException):
                time.sleep(0.05)
        super().ready()

    def leader(self):
        for node in list(self.processes):
            try:
                status, body = Client(self, node, 1).ask("GET", "/v1/status", None)
                if status == 200 and json.loads(body)["part"] == "leader":
                    return node
            except (OSError, http.client.HTTPException, KeyError, ValueError):
                pass
        return None

    def write(self, name, address):
        change = {"do": "replace", "name": name, "type": "AAAA", "ttl": 30, "data": [address]}
        return self.path, json.dumps({"zones": [{"zone": "bench.peak", "changes": [change]}]})

    def answer(self, node, name, wait=0.2):
        """The AAAA record that the node answers, as octets; none in time."""
        labels = b"".join(bytes([len(label)]) + label.encode() for label in f"{name}.bench.peak".split("."))
        question = struct.pack(">6H", 7, 0, 1, 0, 0, 0) + labels + b"\0" + struct.pack(">2H", 28, 1)
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asking:
            asking.connect(("127.0.0.1", self.dns_port(node)))
            asking.settimeout(wait)
            asking.send(question)
            try:
                reply = asking.recv(1500)
            except TimeoutError:
                return None
        return reply[-16:] if struct.unpack(">H", reply[6:8])[0] else None
