"""Two pods as an API server and the webhook make them, run by their patched specs, and what they say to each other: real
admission, each pod's own token by TokenRequest, verified by the server's key set.

    pair.py FUNICULAR                                   with api_server.py
    pair.py FUNICULAR --server URL --token T --ca FILE  with a real one, in whose namespaces this already runs

Needs root. Prints one line for each claim.
"""

import base64, pathlib, socket, subprocess, tempfile
import urllib.parse

import yaml

import api_server
from control import Authority, Control, parser, until
from kubelet import Node, enclosed, layout

API_SERVER = "kubernetes.default.svc.cluster.local"
TRUST_DOMAIN = "cluster.example"
SPACE = "2001:db8:5:1::/64"
ZONE = """$ORIGIN shop.peak.
$TTL 60
@ SOA ns hostmaster 1 3600 600 86400 5
@ NS ns
ns AAAA 2001:db8:77::1
orders APL 2:2001:db8:5:1::/64
_ssa.orders SVCB 1 orders port=8080 ( key65400="v=ssa1 layout=random:16,source-hash:48/128 slices=14" )
"""
# What a cluster's own DNS says.
CLUSTER_ZONE = """$ORIGIN cluster.local.
$TTL 5
@ SOA ns.dns hostmaster 1 3600 600 86400 5
@ NS ns.dns
ns.dns AAAA 2001:db8:77::1
kubernetes.default.svc AAAA 2001:db8:77::1
"""

# A program that calls at its very first instruction, again when it is told to stop, and once for each line of a file.
CALLER = """
import signal, sys, time, urllib.request
def call(word):
    try:
        with urllib.request.urlopen("http://orders.shop.peak/" + word, timeout=10) as answer:
            print(word, answer.read().decode(), flush=True)
    except Exception as error:
        print(word, "failed:", error, flush=True)
call("first")
if "once" in sys.argv:
    sys.exit(0)
def stop(*_):
    call("last")
    sys.exit(0)
signal.signal(signal.SIGTERM, stop)
while True:
    time.sleep(0.2)
    call("again")
"""
SERVER = """
import http.server, socket
class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    def log_message(self, *_): pass
    def do_GET(self):
        text = ("well" if self.path == "/healthz" else "orders" + self.path).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)
class Server(http.server.ThreadingHTTPServer):
    address_family = socket.AF_INET6
Server(("::1", 8080), Handler).serve_forever()
"""


def python(code, *arguments):
    return {"image": "python:3", "command": ["/usr/bin/python3", "-c", code, *arguments]}


def serving():
    probe = {"httpGet": {"path": "/healthz", "port": 8080}, "periodSeconds": 1}
    return {"serviceAccountName": "orders", "containers": [{"name": "orders", **python(SERVER), "readinessProbe": probe, "livenessProbe": probe}]}


def calling(account="web", arguments=(), restart="Always"):
    # It runs before the application, and already needs the network.
    migrate = {"name": "migrate", "image": "curl", "command": ["/usr/bin/curl", "-sSf", "--retry", "0", "http://orders.shop.peak/migrate"]}
    return {"serviceAccountName": account, "restartPolicy": restart, "terminationGracePeriodSeconds": 8,
            "initContainers": [migrate], "containers": [{"name": account, **python(CALLER, *arguments)}]}


class Pair(Control):
    def __init__(self, arguments):
        self.folder = pathlib.Path(tempfile.mkdtemp(prefix="pair-"))
        self.node = Node(layout(arguments.funicular, self.folder / "image"))
        own = None
        if not arguments.server:
            server = Authority(self.folder / "server")
            own = api_server.ApiServer(host=self.node.address, certificate=(*server.certificate(API_SERVER, self.node.address), server.file))
        super().__init__(arguments, own)
        self.names = 0

    def prepare(self):
        """What an administrator does: a namespace that asks for sidecars, accounts, certificates and one configuration."""
        self.namespace("shop", **{"funicular.dev/inject": "true"})
        for account in ("orders", "web", "stranger"):
            self.account("shop", account)
        # A controller publishes it in every namespace.
        authority = pathlib.Path(self.ca).read_text()
        self.config_map("kube-root-ca.crt", {"ca.crt": authority})
        self.mesh = mesh = Authority(self.folder / "mesh")
        chain, key = mesh.certificate("orders.shop.peak")
        data = {"ca.crt": mesh.file, "tls.crt": chain, "tls.key": key}
        self.apply({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "mesh", "namespace": "shop"},
                    "data": {name: base64.b64encode(file.read_bytes()).decode() for name, file in data.items()}})
        port = urllib.parse.urlsplit(self.server).port
        configuration = {
            "identity": {"token_file": "/var/run/secrets/funicular/token", "ca": "/identity/ca.crt"},
            "tls": {"certificate": "/identity/tls.crt", "key": "/identity/tls.key"},
            "trust": [{"issuer": api_server.ISSUER, "jwks": f"https://{API_SERVER}:{port}/openid/v1/jwks",
                       "jwks_ca": "/var/run/secrets/funicular/kubernetes-ca.crt", "algorithms": ["ES256"],
                       "audience": "funicular.dev", "kubernetes": TRUST_DOMAIN}],
            "dns": {"peak": {"zones": ["shop.peak"], "servers": [f"[{self.node.address}]:53"]}},
        }
        self.config_map("funicular", {"funicular.yaml": yaml.safe_dump(configuration)})
        caller = f"spiffe://{TRUST_DOMAIN}/ns/shop/sa/web"
        configuration["inbound"] = {"services": [{"name": "orders.shop.peak", "callers": [caller]}]}
        self.config_map("orders", {"funicular.yaml": yaml.safe_dump(configuration)})
        if self.own is None:
            # The server's keys are for everybody, as deploy/base/issuer-keys.yaml says.
            for object in yaml.safe_load_all((pathlib.Path(__file__).parents[2] / "deploy/base/issuer-keys.yaml").read_text()):
                self.apply(object)

    def config_map(self, name, data):
        self.apply({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name, "namespace": "shop"}, "data": data})

    def peak_command(self):
        """Peak, who answers as the cluster's DNS too."""
        zones = []
        for name, text in [("shop.peak", ZONE), ("cluster.local", CLUSTER_ZONE)]:
            (self.folder / name).write_text(text)
            zones += ["--zone", f"{name}={self.folder / name}"]
        return [self.arguments.funicular, "peak", *zones, "--listen", f"[{self.node.address}]:53"]

    def peak(self):
        return subprocess.Popen(self.peak_command(), stderr=open(self.folder / "peak.log", "ab"))

    def made(self, name, spec, native, **annotations):
        """The pod as the API server keeps it after admission, or what it would be if the server knew native sidecars."""
        self.names += 1
        annotations = {f"config.funicular.dev/{key.replace('_', '-')}": value for key, value in annotations.items()}
        annotations.setdefault("config.funicular.dev/identity-secret", "mesh")
        pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": f"{name}-{self.names}", "annotations": dict(annotations)}, "spec": spec}
        if self.native:
            pod["metadata"]["annotations"]["config.funicular.dev/native-sidecar"] = str(native).lower()
        asked = pod
        if not self.native and native and spec.get("restartPolicy") == "Never":
            # The old server's webhook refuses Jobs; the pod alone is made there, for its name and its token.
            asked = {**pod, "metadata": {**pod["metadata"], "labels": {"funicular.dev/inject": "false"}}}
        made = self.api.must("POST", "/api/v1/namespaces/shop/pods", asked)
        if not native or self.native:
            return made
        pod["metadata"]["labels"] = {"funicular.dev/inject": "true"}
        told = subprocess.run([self.arguments.funicular, "inject", "-", "-o", "json"], input=yaml.safe_dump(pod), capture_output=True, text=True)
        assert told.returncode == 0, told.stderr
        injected = yaml.safe_load(told.stdout)["items"][0]
        return {**injected, "metadata": {**injected["metadata"], "uid": made["metadata"]["uid"], "namespace": "shop"}}

    def run(self):
        self.prepare()
        peak = self.peak()
        webhook = self.one_webhook()
        try:
            for native in ([True, False] if self.native else [False, True]):
                self.talk(native)
        except BaseException:
            for log in [*self.node.scratch.glob("*/*.log"), pathlib.Path(self.log)]:
                print(f"--- {log}\n{log.read_text()[-3000:]}")
            raise
        finally:
            self.node.stop()
            webhook.stop()
            peak.terminate()
        print(f"{self.claims} claims hold")

    def talk(self, native):
        form = "native" if native else "classic"
        orders = self.node.run(self.made("orders", serving(), native, config_map="orders", service_prefix=SPACE), self.api)
        # The node agent's work: slices of the service lead to its pod.
        subprocess.run(["ip", "route", "replace", SPACE, "via", orders.address], check=True)
        assert orders.phases == (["funicular-init", "funicular", "orders"]), orders.phases
        until("the probes of orders pass", orders.ready)
        self.claim(f"{form}: a pod runs by its patched spec, and the kubelet's probes reach its application")

        # In the classic form nothing carries for init containers: theirs is the network as it was.
        spec = calling()
        if not native:
            spec.pop("initContainers")
        web = self.node.run(self.made("web", spec, native), self.api)
        caller = web.container("web")
        until("the application has called", lambda: "first" in caller.said())
        assert caller.said().startswith("first orders/first\n"), caller.said()
        if native:
            assert web.phases == ["funicular-init", "funicular", "migrate", "web"], web.phases
            self.claim("native: a later init container has the network, and the application at its first instruction")
        else:
            self.claim("classic: the application has the network at its first instruction")
        assert orders.metric("funicular_connections_total", direction="inbound") >= 1
        assert orders.metric("funicular_token_verdicts_total", how="checked") >= 1
        # On a busy machine a caller may try a second address, and leave the first.
        left = orders.metric("funicular_refusals_total", reason="handshake-ended")
        assert orders.metric("funicular_refusals_total") == left
        self.claim(f"{form}: the call went through the pair, with the pod's own token, which the API server's keys verify")

        self.refusals(orders, native)
        if native:
            self.renewed(web, orders)
            self.job(native)
        assert web.stop(), "everybody ends within the grace period"
        said = caller.said().splitlines()
        assert said[-1] == "last orders/last" and not [line for line in said if "failed" in line], said[-5:]
        until_closed = orders.stop()
        assert until_closed
        self.claim(f"{form}: told to stop, the application makes its last call, then the pod ends within its grace period")

    def refusals(self, orders, native):
        before = orders.metric("funicular_refusals_total", reason="caller-not-allowed")
        stranger = self.node.run(self.made("stranger", {**calling("stranger", ["once"]), "initContainers": []}, native), self.api)
        until("the stranger has called", lambda: "first" in stranger.container("stranger").said())
        assert "failed" in stranger.container("stranger").said(), stranger.container("stranger").said()
        assert orders.metric("funicular_refusals_total", reason="caller-not-allowed") > before
        stranger.stop()
        # No token at all, and TLS or not: the node itself.
        with socket.create_connection((orders.address, 8080), timeout=5) as plain:
            plain.sendall(b"GET / HTTP/1.1\r\nHost: orders\r\n\r\n")
            try:
                assert plain.recv(100) == b""
            except ConnectionResetError:
                pass
        assert orders.metric("funicular_refusals_total", direction="inbound") > before + 1
        self.claim("another account of the namespace, and whoever has no token, is refused")

    def renewed(self, web, orders):
        """The kubelet renews the token; the sidecar takes it up, and nobody notices."""
        token = (web.folder / "funicular-token/token").read_text()
        web.renew("funicular-token")
        assert (web.folder / "funicular-token/token").read_text() != token
        # An ECDSA signature is another each time, so the server has to verify again.
        verified = orders.metric("funicular_token_verdicts_total", how="checked")
        until("the renewed token is shown", lambda: orders.metric("funicular_token_verdicts_total", how="checked") > verified, 60)
        self.claim("a token that the kubelet renews is taken up while calls go on")

    def job(self, native):
        job = self.node.run(self.made("job", {**calling("web", ["once"], "Never"), "initContainers": []}, native), self.api)
        assert job.finish() == {"web": 0}
        assert job.running[0].said() == "first orders/first\n", job.running[0].said()
        assert job.sidecars[0].process.returncode == 0, job.sidecars[0].said()[-2000:]
        self.claim("a Job's pod ends when its application has ended, and its sidecar in peace")


if __name__ == "__main__":
    enclosed()
    Pair(parser(__doc__).parse_args()).run()
