"""Injected pods lease the slices of their service: each proves to Peak who it is by its own token of Kubernetes, and tells the
node's agent, which runs as its DaemonSet says, by the socket that the webhook has mounted what Peak has given it. Calls find
their way with no other route.

    leases.py FUNICULAR

Needs root. Prints one line for each claim.
"""

import pathlib, subprocess
import urllib.parse

import yaml

import api_server
from control import DEPLOY, free_port, parser, until
from kubelet import MS_BIND, enclosed, mount
from pair import API_SERVER, SPACE, TRUST_DOMAIN, Pair, calling, serving

# The agent's table.
TABLE = "15070"


class Leases(Pair):
    def prepare(self):
        super().prepare()
        # Beside the pods that other trials have left.
        self.names = 100
        # As on a node: the same folder for its agent and its pods.
        pathlib.Path("/run/funicular").mkdir(exist_ok=True)
        mount("tmpfs", "/run/funicular", 0, "tmpfs")
        self.peak_files = self.mesh.certificate("peak.shop.peak")
        # What a node knows without asking.
        hosts = self.folder / "hosts"
        hosts.write_text(f"{self.node.address} {API_SERVER}\n")
        mount(hosts, "/etc/hosts", MS_BIND)
        orders = yaml.safe_load(self.api.must("GET", "/api/v1/namespaces/shop/configmaps/orders")["data"]["funicular.yaml"])
        # Who the pod is stands nowhere here: its token says so.
        orders["lease"] = {"servers": [f"[{self.node.address}]:7445"], "name": "peak.shop.peak"}
        self.config_map("leasing", {"funicular.yaml": yaml.safe_dump(orders)})

    def peak(self):
        program = self.peak_command()[0]
        chain, key = self.peak_files
        account = f"spiffe://{TRUST_DOMAIN}/ns/shop/sa/orders"
        port = urllib.parse.urlsplit(self.server).port
        cluster = {"issuer": api_server.ISSUER, "jwks": f"https://{API_SERVER}:{port}/openid/v1/jwks", "jwks_ca": str(self.ca),
                   "algorithms": ["ES256"], "audience": "funicular.dev", "kubernetes": TRUST_DOMAIN}
        configuration = {
            "listen": f"[{self.node.address}]:53", "api": {"listen": "127.0.0.1:7443"}, "admin": {"listen": f"127.0.0.1:{free_port()}", "metrics": f"[::]:{free_port()}"},
            "zones": [{"name": name, "file": str(self.folder / name), "replicated": name == "shop.peak"} for name in ("shop.peak", "cluster.local")],
            "slices": {"listen": f"[{self.node.address}]:7445", "name": "peak.shop.peak", "certificate": str(chain), "key": str(key),
                       "trust": [cluster], "services": [{"name": "orders.shop.peak", "pods": [account]}]}}
        file = self.folder / "peak.yaml"
        file.write_text(yaml.safe_dump(configuration))
        return subprocess.Popen([program, "peak", "--config", file], stderr=open(self.folder / "peak.log", "ab"))

    def agent(self):
        """The agent as its DaemonSet says, told where this node's pods and other nodes are."""
        settings, daemon_set = yaml.safe_load_all((DEPLOY / "base/node.yaml").read_text())
        configuration = yaml.safe_load(settings["data"]["node.yaml"])
        # No container runtime puts processes into groups here.
        del configuration["pods"]
        configuration |= {"spaces": [SPACE], "carrying": {"nodes": ["2001:db8:77::/64"]}}
        settings["data"]["node.yaml"] = yaml.safe_dump(configuration)
        self.apply(settings)
        metadata, template = daemon_set["metadata"], daemon_set["spec"]["template"]
        pod = {"apiVersion": "v1", "kind": "Pod", "spec": template["spec"],
               "metadata": {**template["metadata"], "name": f"{metadata['name']}-1", "namespace": metadata["namespace"]}}
        return self.node.run(pod, self.api)

    def routes(self, pod):
        """Prefixes that the agent routes to the pod."""
        told = subprocess.run(["ip", "-6", "route", "show", "table", TABLE], capture_output=True, text=True).stdout
        return [line.split()[0] for line in told.splitlines() if f"via {pod.address} " in line]

    def leasing(self):
        spec = serving()
        # The application answers while its slices go to others; how long is for those to say who know it.
        spec["containers"][0]["lifecycle"] = {"preStop": {"exec": {"command": ["/bin/sleep", "5"]}}}
        pod = self.made("orders", spec, self.native, config_map="leasing", leases="true", service_prefix=SPACE)
        return self.node.run(pod, self.api)

    def calls_go_on(self, web):
        caller = web.container("web")
        said = len(caller.said().splitlines())
        until("calls go on", lambda: len(caller.said().splitlines()) > said + 5)
        assert "failed" not in caller.said(), caller.said()

    def run(self):
        self.prepare()
        peak = self.peak()
        webhook = self.one_webhook(FUNICULAR_SIDECAR_TRUST_DOMAIN=TRUST_DOMAIN)
        try:
            agent = self.agent()
            until("the agent is ready", agent.ready)
            one = self.leasing()
            until("the first pod has the whole space", lambda: self.routes(one))
            spec = calling()
            if not self.native:
                spec.pop("initContainers")
            web = self.node.run(self.made("web", spec, self.native), self.api)
            two = self.leasing()
            until("the second pod has its share", lambda: self.routes(two))
            before = two.metric("funicular_connections_total", direction="inbound")
            until("it is called", lambda: two.metric("funicular_connections_total", direction="inbound") > before, 60)
            self.claim("two pods lease slices as the accounts that their own tokens prove, and the node's agent routes them by what their sidecars say")
            assert agent.stop(), "the agent ends within its grace period"
            until("the agent is back", self.agent().ready)
            until("it knows both pods", lambda: self.routes(one) and self.routes(two))
            self.calls_go_on(web)
            self.claim("the node's agent is made anew, and no call has failed")
            assert one.stop(), "everybody ends within the grace period"
            assert not self.routes(one)
            self.calls_go_on(web)
            self.claim("one of them ends: its slices go before its application does, and no call has failed")
        except BaseException:
            for log in [self.folder / "peak.log", *self.node.scratch.glob("*/*.log")]:
                print(f"--- {log}\n{log.read_text()[-2500:] if log.exists() else 'none'}")
            raise
        finally:
            self.node.stop()
            webhook.stop()
            peak.terminate()
            peak.wait(20)
        print(f"{self.claims} claims hold")


if __name__ == "__main__":
    enclosed()
    Leases(parser(__doc__).parse_args()).run()
