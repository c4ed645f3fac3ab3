#!/usr/bin/env python3
"""Measures pairs of sidecar proxies side by side. See README.md.

Two network namespaces stand for two pods: load generator and proxy A in one, proxy B and the application in the other.
Proxies run on CPU 0, everything else on CPU 1. The figure that counts is CPU time of both proxies per request, from
/proc: it holds still where rates do not.
"""

import argparse
import base64
import json
import os
import re
import shlex
import signal
import socket
import statistics
import string
import subprocess as sp
import sys
import tempfile
import time
import tomllib
from pathlib import Path

HERE = Path(__file__).resolve().parent
TICKS = os.sysconf("SC_CLK_TCK")
A_HOST, B_HOST = "2001:db8:1::10", "2001:db8:2::10"
PORTS = {"A_PORT": "15101", "B_PORT": "15106", "APP_PORT": "8080", "IPERF_PORT": "5201"}
CONNECTIONS, RATE = 32, 2000

# Scenario: what is measured, and in which of a peer's roles.
SCENARIOS = {
    "keepalive": ("requests", ("relay", "http", "tls", "jwt", "tunnel", "pp2", "header")),
    "rate": ("rate", ("relay", "http", "tls", "jwt", "tunnel", "pp2", "header")),
    "churn": ("churn", ("relay", "jwt", "tunnel", "header")),
    "handshake": ("churn", ("relay", "fresh", "pp2")),
    "hop": ("requests", ("plain", "redirected")),
    "hop-churn": ("churn", ("plain", "redirected")),
    "bulk": ("bulk", ("relay", "tcp", "tunnel", "pp2")),
    "memory": ("memory", ("relay", "http", "tls", "jwt", "tunnel", "pp2", "header")),
}
children = []


def openssl(*arguments, given=None):
    return sp.run(["openssl", *arguments], input=given, check=True, capture_output=True).stdout


def b64(octets):
    return base64.urlsafe_b64encode(octets).rstrip(b"=").decode()


def make_keys(folder):
    """An authority, certificates of A and B, a key that signs tokens, its key set, and a token for the peers."""
    env = {}
    for name in ("ca", "a", "b", "jwt"):
        openssl("ecparam", "-name", "prime256v1", "-genkey", "-noout", "-out", f"{folder}/{name}.ec")
        openssl("pkcs8", "-topk8", "-nocrypt", "-in", f"{folder}/{name}.ec", "-out", f"{folder}/{name}.key")
    openssl("req", "-x509", "-new", "-key", f"{folder}/ca.key", "-subj", "/CN=bench-ca", "-days", "30",
            "-out", f"{folder}/ca.crt")
    for name in "ab":
        (folder / f"{name}.ext").write_text(
            f"subjectAltName=DNS:{name}.test,DNS:bench.peak\nextendedKeyUsage=serverAuth,clientAuth\n"
            "basicConstraints=CA:FALSE\n")
        csr = openssl("req", "-new", "-key", f"{folder}/{name}.key", "-subj", f"/CN={name}.test")
        openssl("x509", "-req", "-CA", f"{folder}/ca.crt", "-CAkey", f"{folder}/ca.key", "-set_serial",
                str(10 + ord(name)), "-days", "30", "-extfile", f"{folder}/{name}.ext", "-out",
                f"{folder}/{name}.crt", given=csr)
        (folder / f"{name}.pem").write_text((folder / f"{name}.crt").read_text() + (folder / f"{name}.key").read_text())
        side = name.upper()
        env |= {f"CERT_{side}": f"{folder}/{name}.crt", f"KEY_{side}": f"{folder}/{name}.key",
                f"PEM_{side}": f"{folder}/{name}.pem"}
    openssl("pkey", "-in", f"{folder}/jwt.key", "-pubout", "-out", f"{folder}/jwt.pub")
    point = openssl("pkey", "-in", f"{folder}/jwt.key", "-pubout", "-outform", "DER")[-64:]
    now = int(time.time())
    head = {"alg": "ES256", "typ": "JWT", "kid": "k1"}
    body = {"iss": "bench", "aud": "app", "sub": "spiffe://test/ns/default/sa/a", "iat": now, "exp": now + 10**6}
    signed = ".".join(b64(json.dumps(part).encode()) for part in (head, body))
    der = openssl("dgst", "-sha256", "-sign", f"{folder}/jwt.key", given=signed.encode())
    r_end = 4 + der[3]
    r, s = int.from_bytes(der[4:r_end], "big"), int.from_bytes(der[r_end + 2:], "big")
    key = {"kty": "EC", "crv": "P-256", "alg": "ES256", "use": "sig", "kid": "k1", "x": b64(point[:32]),
           "y": b64(point[32:])}
    (folder / "jwks.json").write_text(json.dumps({"keys": [key]}))
    token = signed + "." + b64(r.to_bytes(32, "big") + s.to_bytes(32, "big"))
    return env | {"CA": f"{folder}/ca.crt", "JWT_KEY": f"{folder}/jwt.key", "JWT_PUB": f"{folder}/jwt.pub",
                  "JWKS": f"{folder}/jwks.json", "TOKEN": token}


def start(command, pod, cpu, env, log):
    """Starts a command in a pod on one CPU. Its process is the one that counts: every wrapper replaces itself."""
    entered = ["ip", "netns", "exec", SERVER_POD] if pod == "b" else []
    process = sp.Popen([*entered, "taskset", "-c", str(cpu), "sh", "-c", "exec " + command], env=env, stdout=log,
                       stderr=log, stdin=sp.DEVNULL, start_new_session=True)
    children.append(process)
    return process


def stop(process):
    for wish in (signal.SIGTERM, signal.SIGKILL):
        try:
            os.killpg(process.pid, wish)
        except ProcessLookupError:
            pass
        try:
            process.wait(3)
            break
        except sp.TimeoutExpired:
            pass
    if process in children:
        children.remove(process)


def family(pid):
    found, ahead = [], [pid]
    while ahead:
        pid = ahead.pop()
        found.append(pid)
        try:
            ahead += [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
        except OSError:
            pass
    return found


def cpu_seconds(process):
    total = 0
    for pid in family(process.pid):
        try:
            fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
            total += int(fields[11]) + int(fields[12])
        except OSError:
            pass
    return total / TICKS


def rss_kb(process):
    status = "".join(Path(f"/proc/{pid}/status").read_text() for pid in family(process.pid))
    return sum(int(kb) for kb in re.findall(r"VmRSS:\s+(\d+)", status))


def wait_port(host, port, process, pod="a", limit=15.0):
    """Waits until something listens, without connecting: a connection may be one that a proxy has to carry."""
    begun = time.monotonic()
    wanted = f":{int(port):04X} "
    net = f"/proc/{process.pid}/net/tcp"
    while time.monotonic() - begun < limit:
        if process.poll() is not None:
            raise RuntimeError("it ended at once")
        try:
            tables = Path(net).read_text() + Path(net + "6").read_text()
        except OSError:
            tables = ""
        if any(wanted in line and " 0A " in line for line in tables.splitlines()):
            return time.monotonic() - begun
        time.sleep(0.0005)
    raise RuntimeError(f"port {port} never opened")


class Pair:
    """The two proxies of a peer in one role, B first; or one of them, where a hop by itself is measured."""

    def __init__(self, peer, role, env, destination):
        spec, files = PEERS[peer][role], PEERS[peer].get("files", {})
        self.processes, self.helpers = {}, []
        folder = Path(tempfile.mkdtemp(prefix=f"{peer}-{role}-", dir=env["W"]))
        self.env = env | PORTS | {"HERE": str(HERE), "W": str(folder), "KEYS": env["W"], "DST_PORT": destination,
                                  "ROLE": role, "A_HOST": A_HOST, "B_HOST": B_HOST}
        fill = lambda text: string.Template(text).safe_substitute(self.env)
        for name, text in files.items():
            (folder / name).write_text(fill(text))
        self.log = open(folder / "log", "w")
        self.undo = [fill(command) for command in spec.get("undo", [])]
        try:
            for command in spec.get("setup", []):
                sp.run(fill(command), shell=True, check=True, env=self.env, stdout=self.log, stderr=self.log)
            for command in spec.get("helpers", []):
                self.helpers.append(start(fill(command), "b", 1, self.env, self.log))
            for side in [side for side in "ba" if side in spec]:
                process = start(fill(spec[side]), side, 0, self.env, self.log)
                self.processes[side] = process
                port = fill(str(spec.get("port_" + side, "$" + side.upper() + "_PORT")))
                wait_port("", port, process, side)
            self.again = shlex.split(fill(spec["a"])), int(fill(str(spec.get("port_a", "$A_PORT"))))
            if "ready" in spec:
                sp.run(fill(spec["ready"]), shell=True, check=True, env=self.env, stdout=self.log, stderr=self.log)
            host = fill(spec.get("host", "::1"))
            if "host_from" in spec:
                host = sp.run(fill(spec["host_from"]), shell=True, check=True, env=self.env, capture_output=True,
                              text=True).stdout.strip()
            self.target = host, int(fill(spec.get("port", "$A_PORT")))
            time.sleep(0.2)
        except Exception as error:
            self.close()
            raise RuntimeError(f"{error}; {(folder / 'log').read_text()[-800:]}") from error

    def cpu(self):
        return sum(cpu_seconds(process) for process in self.processes.values())

    def close_proxies(self):
        for process in self.processes.values():
            stop(process)
        self.processes = {}

    def close(self):
        self.close_proxies()
        for process in self.helpers:
            stop(process)
        for command in self.undo:
            sp.run(command, shell=True, env=self.env, stdout=self.log, stderr=self.log)


def wrk(target, seconds, close):
    header = ["-H", "Connection: close"] if close else []
    url = f"http://[{target[0]}]:{target[1]}/1k"
    said = sp.run(["taskset", "-c", "1", "wrk", "-t1", f"-c{CONNECTIONS}", f"-d{seconds}s", *header, url],
                  capture_output=True, text=True, timeout=60).stdout
    failed = sum(map(int, re.findall(r"Non-2xx or 3xx responses: (\d+)", said)))
    if not close:  # wrk counts the peer's close as a read error
        failed += sum(int(n) for row in re.findall(r"connect (\d+), read (\d+), write (\d+), timeout (\d+)", said)
                      for n in row)
    return int(re.search(r"(\d+) requests in", said)[1]), float(re.search(r"Requests/sec:\s+([\d.]+)", said)[1]), failed


def requests(pair, seconds, close=False):
    wrk(pair.target, 1, close)
    before = pair.cpu()
    count, rate, failed = wrk(pair.target, seconds, close)
    return {"cpu_us": (pair.cpu() - before) / count * 1e6, "per_s": rate, "failed": failed}


def at_rate(pair, seconds):
    before = pair.cpu()
    said = sp.run(["taskset", "-c", "1", os.environ["FLOOR"], "load", f"[{pair.target[0]}]:{pair.target[1]}", str(RATE),
                   str(seconds), "20"], capture_output=True, text=True, timeout=60).stdout.split()
    used = pair.cpu() - before
    count, failed = int(said[0]), int(said[1])
    return {"cpu_us": used / max(count, 1) * 1e6, "p50_ms": float(said[2]) / 1e3, "p99_ms": float(said[3]) / 1e3,
            "failed": failed}


def bulk(pair, seconds):
    before = pair.cpu()
    said = json.loads(sp.run(["taskset", "-c", "1", "iperf3", "-6", "-c", pair.target[0], "-p", str(pair.target[1]), "-t",
                              str(seconds), "-J"], capture_output=True, text=True, timeout=60).stdout)
    if "error" in said:
        raise RuntimeError(said["error"])
    used, received = pair.cpu() - before, said["end"]["sum_received"]
    return {"cpu_s_per_gb": used / received["bytes"] * 1e9, "gbit_s": received["bits_per_second"] / 1e9}


def memory(pair):
    """Start-up, resident memory when nothing was carried yet, and per idle connection that served one request."""
    idle = {side: rss_kb(process) for side, process in pair.processes.items()}
    clients = []
    for _ in range(1000):
        client = socket.create_connection(pair.target, 5)
        clients.append(client)
        client.sendall(b"GET /1k HTTP/1.1\r\nHost: bench\r\n\r\n")
        got = b""
        while b"\r\n\r\n" not in got or len(got) < got.index(b"\r\n\r\n") + 4 + 1024:
            came = client.recv(8192)
            if not came:
                raise RuntimeError("closed early")
            got += came
    time.sleep(0.5)
    full = {side: rss_kb(process) for side, process in pair.processes.items()}
    for client in clients:
        client.close()
    pair.close_proxies()
    sides = {f"idle_mb_{side}": kb / 1024 for side, kb in sorted(idle.items())}
    return sides | {f"kb_per_conn_{side}": (full[side] - kb) / 1000 for side, kb in sorted(idle.items())} | {
        "start_ms": statistics.median(start_ms(pair) for _ in range(9))}


def start_ms(pair):
    """From the moment at which A is started until it takes a connection."""
    command, port = pair.again
    begun = time.perf_counter()
    process = sp.Popen(command, env=pair.env, stdout=sp.DEVNULL, stderr=sp.DEVNULL, start_new_session=True)
    children.append(process)
    while True:
        for host in ("::1", "127.0.0.1"):
            try:
                socket.create_connection((host, port), 1).close()
            except ConnectionRefusedError:
                continue
            except ConnectionResetError:
                pass  # taken, and found to be nobody's
            taken = (time.perf_counter() - begun) * 1e3
            stop(process)
            return taken
        if time.perf_counter() - begun > 5:
            stop(process)
            raise RuntimeError(f"nothing listens on port {port}")


def measure(kind, peer, role, env, seconds):
    pair = Pair(peer, role, env, PORTS["IPERF_PORT" if kind == "bulk" else "APP_PORT"])
    try:
        match kind:
            case "requests": return requests(pair, seconds)
            case "churn": return requests(pair, seconds, close=True)
            case "rate": return at_rate(pair, seconds)
            case "bulk": return bulk(pair, seconds)
            case "memory": return memory(pair)
    finally:
        pair.close()


def make_pods():
    """This process lives in A's pod already; B's is made, and a link between them."""
    sp.run(f"""set -e
        ip netns add {SERVER_POD}
        ip link set lo up
        ip link add eth0 type veth peer name eth0 netns {SERVER_POD}
        ip addr add {A_HOST}/64 dev eth0 nodad && ip link set eth0 up
        ip netns exec {SERVER_POD} sh -ec 'ip link set lo up; ip addr add {B_HOST}/64 dev eth0 nodad; ip link set eth0 up
            ip -6 route add default dev eth0; sysctl -qw net.ipv4.ip_local_port_range="16000 65000"'
        ip -6 route add default dev eth0
        ip -6 route add 2001:db8:5:1::/64 via {B_HOST} onlink dev eth0
        sysctl -qw net.ipv4.ip_local_port_range='16000 65000'""", shell=True, check=True)


def start_applications(env, folder, log):
    (folder / "1k").write_bytes(b"x" * 1024)
    temporary = " ".join(f"{kind}_temp_path {folder}/t-{kind};" for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi"))
    (folder / "app.conf").write_text(f"""daemon off; worker_processes 1; error_log {folder}/app.err; pid {folder}/app.pid; user root;
        events {{ worker_connections 9000; }}
        http {{ access_log off; keepalive_requests 100000000; keepalive_timeout 600; open_file_cache max=10; {temporary}
            server {{ listen [::1]:{PORTS['APP_PORT']} backlog=4096; listen [{B_HOST}]:{PORTS['APP_PORT']} backlog=4096; root {folder}; default_type text/plain; }} }}""")
    for command, port in ((f"nginx -c {folder}/app.conf", PORTS["APP_PORT"]),
                          (f"iperf3 -6 -s -p {PORTS['IPERF_PORT']}", PORTS["IPERF_PORT"])):
        wait_port("", port, start(command, "b", 1, env, log))


def print_table(scenario, rows):
    columns = list(dict.fromkeys(key for runs in rows.values() for run in runs for key in run))
    print(f"\n### {scenario} (median of {max(map(len, rows.values()))})\n\n| peer | " + " | ".join(columns) + " | ratio |")
    print("|" + "---|" * (len(columns) + 2))
    medians = {name: {key: statistics.median(run[key] for run in runs) for key in columns} for name, runs in rows.items()}
    best = min(values[columns[0]] for values in medians.values())
    for name, values in medians.items():
        spread = [run[columns[0]] for run in rows[name]]
        cells = [f"{values[key]:.4g}" for key in columns]
        cells[0] += f" ({min(spread):.3g} to {max(spread):.3g})"
        print(f"| {name} | " + " | ".join(cells) + f" | {values[columns[0]] / best:.2f} |")


def main():
    global PEERS, SERVER_POD
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--peers", default="", help="comma list of peers/NAME.toml; all by default")
    parser.add_argument("--scenarios", default=",".join(SCENARIOS))
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=int, default=4)
    parser.add_argument("--json", default="", help="write every single result here")
    parser.add_argument("--pod", default="", help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    if not chosen.pod:
        pod = f"bench-b-{os.getpid()}"
        os.execvp("unshare", ["unshare", "-n", "--", sys.executable, __file__, *sys.argv[1:], "--pod", pod])
    SERVER_POD = chosen.pod
    import resource
    resource.setrlimit(resource.RLIMIT_NOFILE, (resource.getrlimit(resource.RLIMIT_NOFILE)[1],) * 2)
    PEERS = {path.stem: tomllib.loads(path.read_text()) for path in sorted((HERE / "peers").glob("*.toml"))
             if not chosen.peers or path.stem in chosen.peers.split(",")}
    results, failed = {}, set()
    with tempfile.TemporaryDirectory(prefix="proxybench-") as folder:
        folder = Path(folder)
        folder.chmod(0o755)
        env = dict(os.environ) | make_keys(folder) | {"W": str(folder), "SERVER_POD": SERVER_POD}
        try:
            make_pods()
            start_applications(env, folder, open(folder / "app.log", "w"))
            for scenario in chosen.scenarios.split(","):
                kind, roles = SCENARIOS[scenario]
                todo = [(peer, role) for peer in PEERS for role in PEERS[peer] if role.split("-")[0] in roles]
                # One round after another, so that drift of the machine hits all peers alike.
                for _ in range(chosen.rounds):
                    for peer, role in todo:
                        if (peer, role) in failed:
                            continue
                        try:
                            result = measure(kind, peer, role, env, chosen.seconds)
                        except Exception as error:
                            failed.add((peer, role))
                            print(f"FAIL {scenario} {peer}/{role}: {str(error)[-900:]}", file=sys.stderr)
                            continue
                        results.setdefault(scenario, {}).setdefault(f"{peer}/{role}", []).append(result)
                        shown = {key: round(value, 3) for key, value in result.items()}
                        print(scenario, f"{peer}/{role}", shown, file=sys.stderr, flush=True)
        finally:
            for process in list(children):
                stop(process)
            sp.run(["ip", "netns", "del", SERVER_POD], check=False)
    for scenario, rows in results.items():
        print_table(scenario, rows)
    if chosen.json:
        Path(chosen.json).write_text(json.dumps(results, indent=1))


main()
