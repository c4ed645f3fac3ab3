"""Injected pods lease the slices of their service: two sidecars tell the node's agent, by the socket that the webhook has
mounted, what Peak has given them, and calls find their way with no other route.

    leases.py FUNICULAR

Needs root. Prints one line for each claim.
"""

import base64, json, pathlib, subprocess

import yaml

from control import Authority, free_port, openssl, parser, until
from kubelet import enclosed, mount
from pair import SPACE, TRUST_DOMAIN, Pair, calling, serving

ISSUER = "https://shop.example"
# The agent's table.
TABLE = "15070"


def base64url(octets):
    return base64.urlsafe_b64encode(octets).rstrip(b"=").decode()


class Leases(Pair):
    def prepare(self):
        super().prepare()
        # As on a node: the same folder for its agent and its pods.
        pathlib.Path("/run/funicular").mkdir(exist_ok=True)
        mount("tmpfs", "/run/funicular", 0, "tmpfs")
        mesh = Authority.__new__(Authority)
        mesh.folder, mesh.file, mesh.days = self.folder / "mesh", self.folder / "mesh/ca.crt", 2
        self.peak_files = mesh.certificate("peak.shop.peak")
        signing = openssl("genpkey", "-algorithm", "ed25519")
        point = openssl("pkey", "-pubout", "-outform", "DER", given=signing)[-32:]
        keys = {"keys": [{"kty": "OKP", "crv": "Ed25519", "kid": "orders-1", "alg": "EdDSA", "use": "sig", "x": base64url(point)}]}
        self.keys = self.folder / "keys.json"
        self.keys.write_text(json.dumps(keys))
        files = {"ca.crt": mesh.file.read_bytes(), "tls.crt": (mesh.folder / "orders.shop.peak.crt").read_bytes(),
                 "tls.key": (mesh.folder / "orders.shop.peak.key").read_bytes(), "signing.pem": signing}
        self.apply({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "leasing", "namespace": "shop"},
                    "data": {name: base64.b64encode(octets).decode() for name, octets in files.items()}})
        _, orders = (yaml.safe_load(self.api.must("GET", f"/api/v1/namespaces/shop/configmaps/{name}")["data"]["funicular.yaml"]) for name in ("funicular", "orders"))
        # Who the pod is stands nowhere here: its account says so.
        orders["identity"] = {"issuer": ISSUER, "signing_key": "/identity/signing.pem", "key_id": "orders-1", "ca": "/identity/ca.crt"}
        orders["lease"] = {"servers": [f"[{self.node.address}]:7445"], "name": "peak.shop.peak"}
        self.config_map("leasing", {"funicular.yaml": yaml.safe_dump(orders)})

    def peak(self):
        program = self.peak_command()[0]
        chain, key = self.peak_files
        account = f"spiffe://{TRUST_DOMAIN}/ns/shop/sa/orders"
        configuration = {
            "listen": f"[{self.node.address}]:53", "api": {"listen": "127.0.0.1:7443"}, "admin": {"listen": f"127.0.0.1:{free_port()}", "metrics": f"[::]:{free_port()}"},
            "zones": [{"name": name, "file": str(self.folder / name), "replicated": name == "shop.peak"} for name in ("shop.peak", "cluster.local")],
            "slices": {"listen": f"[{self.node.address}]:7445", "name": "peak.shop.peak", "certificate": str(chain), "key": str(key),
                       "trust": [{"issuer": ISSUER, "jwks": str(self.keys)}], "services": [{"name": "orders.shop.peak", "pods": [account]}]}}
        file = self.folder / "peak.yaml"
        file.write_text(yaml.safe_dump(configuration))
        return subprocess.Popen([program, "peak", "--config", file], stderr=open(self.folder / "peak.log", "ab"))

    def agent(self):
        configuration = {"address": self.node.address, "spaces": [SPACE], "carrying": {"nodes": ["2001:db8:77::/64"]},
                         "admin": {"listen": f"127.0.0.1:{free_port()}", "metrics": f"[::]:{free_port()}"}}
        file = self.folder / "node.yaml"
        file.write_text(yaml.safe_dump(configuration))
        return subprocess.Popen([self.arguments.funicular, "node", "--config", file], stderr=open(self.folder / "node.log", "ab"))

    def routes(self, pod):
        """Prefixes that the agent routes to the pod."""
        told = subprocess.run(["ip", "-6", "route", "show", "table", TABLE], capture_output=True, text=True).stdout
        return [line.split()[0] for line in told.splitlines() if f"via {pod.address} " in line]

    def leasing(self):
        pod = self.made("orders", serving(), True, config_map="leasing", identity_secret="leasing", leases="true", service_prefix=SPACE)
        return self.node.run(pod, self.api)

    def run(self):
        self.prepare()
        running = [self.peak(), self.agent()]
        webhook = self.one_webhook(FUNICULAR_SIDECAR_TRUST_DOMAIN=TRUST_DOMAIN)
        try:
            until("the agent listens", lambda: pathlib.Path("/run/funicular/node.sock").exists())
            one = self.leasing()
            until("the first pod has the whole space", lambda: self.routes(one))
            web = self.node.run(self.made("web", calling(), True), self.api)
            two = self.leasing()
            until("the second pod has its share", lambda: self.routes(two))
            before = two.metric("funicular_connections_total", direction="inbound")
            until("it is called", lambda: two.metric("funicular_connections_total", direction="inbound") > before, 60)
            self.claim("two pods lease slices as the accounts that they are, and the node's agent routes them by what their sidecars say")
            assert one.stop()
            until("the other has all", lambda: not self.routes(one))
            said = len(web.running[0].said().splitlines())
            until("calls go on", lambda: len(web.running[0].said().splitlines()) > said + 5)
            assert "failed" not in web.running[0].said(), web.running[0].said()
            self.claim("one of them ends, the other has its slices, and no call has failed")
        except BaseException:
            for log in [self.folder / "peak.log", self.folder / "node.log", *self.node.scratch.glob("*/*.log")]:
                print(f"--- {log}\n{log.read_text()[-2500:] if log.exists() else 'none'}")
            raise
        finally:
            self.node.stop()
            webhook.stop()
            for process in running:
                process.terminate()
                process.wait(20)
        print(f"{self.claims} claims hold")


if __name__ == "__main__":
    enclosed()
    Leases(parser(__doc__).parse_args()).run()
