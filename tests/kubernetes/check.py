"""`funicular check` before and after an installation: what is well is called well, and each fault by its name.

    check.py FUNICULAR

Needs root and bird. Prints one line for each claim.
"""

import base64, copy, json, pathlib, subprocess, tempfile, time

import yaml

from control import DEPLOY, Authority, Control, free_port, kubeconfig, parser, until
from kubelet import enclosed

ZONE = """$TTL 60
@ SOA ns hostmaster 1 3600 600 86400 5
@ NS ns
ns AAAA ::1
orders APL 2:2001:db8:5:1::/64
_ssa.orders SVCB 1 orders port=8080 ( key65400="v=ssa1 layout=random:16,source-hash:48/128 slices=14" )
"""
LAME = "lost NS ns.lost\nns.lost AAAA ::2\n"


class Check(Control):
    def check(self, *words, config=None):
        """exit code; state, category and hint of each check"""
        config = config or kubeconfig(self.server)
        command = [self.arguments.funicular, "check", "--kubeconfig", config, "-o", "json", *words]
        told = subprocess.run(command, capture_output=True, text=True, timeout=60)
        assert told.returncode in (0, 1) and told.stdout, told.stderr
        told_all = json.loads(told.stdout)
        assert told_all["well"] == (told.returncode == 0)
        return told.returncode, {check["check"]: check for check in told_all["checks"]}

    def wrong(self, *words):
        code, checks = self.check(*words)
        return {name for name, check in checks.items() if check["state"] == "wrong"}

    def run(self):
        self.before()
        webhook = self.one_webhook()
        try:
            self.after()
        finally:
            webhook.stop()
        self.peak()
        self.bird()
        print(f"{self.claims} claims hold")

    def before(self):
        code, checks = self.check("--pre")
        assert code == 0 and checks["may-install"]["state"] == "right", checks
        assert checks["redirect"]["state"] == "right" and checks["tunnel"]["state"] == "right", checks
        self.own.store.denied.add(("create", "clusterroles"))
        code, checks = self.check("--pre")
        assert code == 1 and "create clusterroles" in checks["may-install"]["seen"] and checks["may-install"]["hint"], checks
        self.own.store.denied.clear()
        nowhere = kubeconfig(f"http://127.0.0.1:{free_port()}")
        code, checks = self.check("--pre", config=nowhere)
        assert code == 1 and checks["api-reachable"]["state"] == "wrong", checks
        self.claim("before installing: the kernel is tried, the cluster reached, and rights that are missing are named")
        assert "webhook-configured" in self.wrong()

    def install(self):
        """What a cluster would say of everything deploy/ has, when it runs."""
        version = subprocess.run([self.arguments.funicular, "--version"], capture_output=True, text=True).stdout.split()[1]
        told = subprocess.run(["kubectl", "kustomize", str(DEPLOY / "overlays/three-node")], capture_output=True, text=True)
        status = {"Deployment": {"readyReplicas": 2}, "StatefulSet": {"readyReplicas": 3}, "DaemonSet": {"desiredNumberScheduled": 2, "numberReady": 2}}
        for object in yaml.safe_load_all(told.stdout):
            if object["kind"] in status:
                assert f"funicular:{version}" in json.dumps(object)
                self.apply({**object, "status": status[object["kind"]]})
        self.apply({"kind": "Node", "metadata": {"name": "n1"}, "status": {"nodeInfo": {"kernelVersion": "6.1.0-18-amd64", "operatingSystem": "linux"}}})
        self.apply({"kind": "Lease", "metadata": {"name": "n1", "namespace": "kube-node-lease"}, "spec": {"renewTime": self.moment(0)}})

    @staticmethod
    def moment(ahead):
        return time.strftime("%Y-%m-%dT%H:%M:%S.000000Z", time.gmtime(time.time() + ahead))

    def changed(self, plural, namespace, name, change):
        """What is wrong while an object is otherwise."""
        key = (plural, namespace, name)
        kept = self.own.store.objects[key]
        self.own.store.objects[key] = copy.deepcopy(kept)
        change(self.own.store.objects[key])
        code, checks = self.check()
        self.own.store.objects[key] = kept
        return {name for name, check in checks.items() if check["state"] == "wrong"}, checks

    def after(self):
        # Certificates of trials live a minute: one that lives on takes their place.
        self.install()
        authority = Authority(tempfile.mkdtemp())
        authority.days = 90
        chain, _ = authority.certificate("127.0.0.1")
        bundle = base64.b64encode(authority.file.read_bytes()).decode()
        store = self.own.store
        secret = ("secrets", "funicular", "funicular-webhook-certificate")
        until("the webhook has made its certificate", lambda: secret in store.objects)
        store.objects[secret] = {**store.objects[secret], "data": {"ca.crt": bundle, "tls.crt": base64.b64encode(chain.read_bytes()).decode()}}
        hooks = ("mutatingwebhookconfigurations", "", "funicular-webhook")

        def believed(object, bundle=bundle):
            for hook in object["webhooks"]:
                hook["clientConfig"]["caBundle"] = bundle
        believed(store.objects[hooks])
        code, checks = self.check()
        assert code == 0, {name: check for name, check in checks.items() if check["state"] == "wrong"}
        expected = {"api-reachable", "version-supported", "clock-skew", "node-kernels", "node-clocks", "webhook-may", "webhook-configured",
                    "webhook-certificate", "webhook-running", "peak-running", "agents-running", "versions", "sidecars", "redirect"}
        assert expected <= {name for name, check in checks.items() if check["state"] == "right"}, checks
        self.claim("a whole installation is well")

        authority.days = 6
        short = base64.b64encode(authority.certificate("127.0.0.1")[0].read_bytes()).decode()
        role = "funicular-webhook"
        image = lambda object: object["spec"]["template"]["spec"]["containers"][0].update(image="funicular:0.0.1")
        faults = [
            ("node-kernels", "nodes", "", "n1", lambda o: o["status"]["nodeInfo"].update(kernelVersion="4.19.0")),
            ("node-clocks", "leases", "kube-node-lease", "n1", lambda o: o["spec"].update(renewTime=self.moment(30))),
            ("webhook-may", "clusterroles", "", role, lambda o: o["rules"].pop()),
            ("webhook-configured", *hooks, lambda o: believed(o, "")),
            ("webhook-certificate", *secret, lambda o: o["data"].update({"tls.crt": short})),
            ("webhook-certificate", *hooks, lambda o: believed(o, short)),
            ("webhook-running", "deployments", "funicular", role, lambda o: o["status"].update(readyReplicas=1)),
            ("peak-running", "statefulsets", "funicular", "funicular-peak", lambda o: o["status"].update(readyReplicas=2)),
            ("agents-running", "daemonsets", "funicular", "funicular-node", lambda o: o["status"].update(numberReady=1)),
        ]
        for check, plural, namespace, name, change in faults:
            wrong, checks = self.changed(plural, namespace, name, change)
            assert wrong == {check} and checks[check]["hint"], (check, wrong, checks.get(check))
        _, checks = self.changed("statefulsets", "funicular", "funicular-peak", image)
        assert checks["versions"]["state"] == "doubtful" and "0.0.1" in checks["versions"]["seen"], checks["versions"]
        store.fast = 30
        assert self.wrong() == {"clock-skew"}
        store.fast = 0
        self.namespace("shop", **{"funicular.dev/inject": "true"})
        store.put("ADDED", "pods", "shop", {"metadata": {"name": "early"}, "spec": {}})
        assert self.wrong() == {"sidecars"}
        store.delete("pods", "shop", "early")
        self.claim(f"each of {len(faults) + 3} faults is found, by its name and with what helps")

    def peak(self):
        folder = pathlib.Path(tempfile.mkdtemp())
        (folder / "shop.zone").write_text(ZONE)
        (folder / "lame.zone").write_text(ZONE + LAME)
        authority = Authority(folder / "tls")
        chain, key = authority.certificate("peak.shop.peak")
        (folder / "nobody.json").write_text('{"keys": []}')
        dns, api = free_port(), free_port()
        configuration = {
            "listen": f"[::1]:{dns}", "api": {"listen": f"127.0.0.1:{api}"},
            "zones": [{"name": "shop.peak", "file": "shop.zone", "replicated": True}, {"name": "lame.peak", "file": "lame.zone", "allow_transfer": [{"prefix": "::1/128"}]}],
            "slices": {"listen": f"[::1]:{free_port()}", "name": "peak.shop.peak", "certificate": str(chain), "key": str(key),
                       "trust": [{"issuer": "https://none.example", "jwks": "nobody.json"}],
                       "services": [{"name": "orders.shop.peak", "pods": ["spiffe://a.example/ns/shop/sa/orders"]}]}}
        (folder / "peak.yaml").write_text(yaml.safe_dump(configuration))
        log = open(folder / "log", "ab")
        peak = subprocess.Popen([self.arguments.funicular, "peak", "--config", folder / "peak.yaml"], stderr=log)
        try:
            asked = ["--server", f"http://127.0.0.1:{api}", "--dns", f"[::1]:{dns}", "--zone"]
            until("Peak answers", lambda: self.check(*asked, "shop.peak")[1]["delegations"]["state"] == "right")
            code, checks = self.check(*asked, "lame.peak")
            assert checks["delegations"]["state"] == "wrong" and "lost.lame.peak" in checks["delegations"]["seen"], checks["delegations"]
            owned = until("its slices are told", lambda: self.check(*asked, "lame.peak")[1].get("slices-owned"))
            assert "orders.shop.peak" not in owned["seen"] or owned["state"] == "wrong", owned
        except BaseException:
            print((folder / "log").read_text())
            raise
        finally:
            peak.terminate()
            peak.wait(20)
        self.claim("slices without an owner and delegations that lead nowhere are found")

    def bird(self):
        """Two real BIRDs, of which one is then gone."""
        folder, ports = pathlib.Path(tempfile.mkdtemp()), (free_port(), free_port())
        birds = []
        for name, (ours, theirs), (own, other) in [("a", ports, (64500, 64501)), ("b", ports[::-1], (64501, 64500))]:
            (folder / f"{name}.conf").write_text(f"""router id 192.0.2.{own - 64499};
protocol device {{ }}
protocol bgp upstream {{ local ::1 port {ours} as {own}; neighbor ::1 port {theirs} as {other}; multihop; connect delay time 1;
  error wait time 1, 2; ipv6 {{ import none; export none; }}; }}
""")
            birds.append(subprocess.Popen(["bird", "-f", "-c", folder / f"{name}.conf", "-s", folder / f"{name}.ctl"], stderr=subprocess.DEVNULL))
        try:
            state = lambda: self.check("--bird", str(folder / "a.ctl"))[1]["bgp-up"]
            until(lambda: f"the session is up: {state()}", lambda: state()["state"] == "right", 60)
            birds[1].terminate()
            until("the session is down", lambda: state()["state"] == "wrong" and "upstream" in state()["seen"], 60)
        finally:
            for bird in birds:
                bird.terminate()
                bird.wait(20)
        self.claim("BIRD is asked whether its sessions are up")


if __name__ == "__main__":
    enclosed()
    Check(parser(__doc__).parse_args()).run()
