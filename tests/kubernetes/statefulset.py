"""Peak as deploy/ has it: its pods run by the rendered StatefulSet, begin one cluster, grow from one to three, and one that
has lost its disk is replaced. The webhook makes what they prove to each other, from what deploy/ says of it.

    statefulset.py FUNICULAR

Needs root, and kubectl to render. Prints one line for each claim.
"""

import json, pathlib, shutil, subprocess, tempfile

import yaml

from control import DEPLOY, Control, parser, until
from kubelet import Node, enclosed, layout, of_stateful_set

ADDRESSES = {ordinal: f"2001:db8:77::2{ordinal}" for ordinal in range(3)}
CLUSTER_ZONE = """$ORIGIN cluster.local.
$TTL 1
@ SOA ns.dns hostmaster 1 3600 600 86400 1
@ NS ns.dns
ns.dns AAAA 2001:db8:77::1
""" + "".join(f"funicular-peak-{n}.funicular-peak-nodes.funicular.svc AAAA {address}\n" for n, address in ADDRESSES.items())


class StatefulSet(Control):
    def __init__(self, arguments):
        super().__init__(arguments)
        self.folder = pathlib.Path(tempfile.mkdtemp(prefix="peak-"))
        self.node = Node(layout(arguments.funicular, self.folder / "image"))

    def rendered(self, overlay):
        """The StatefulSet of an overlay; what it mounts is in the API server."""
        told = subprocess.run(["kubectl", "kustomize", str(DEPLOY / "overlays" / overlay)], capture_output=True, text=True)
        assert told.returncode == 0, told.stderr
        objects = [o for o in yaml.safe_load_all(told.stdout) if o]
        for object in objects:
            if object["kind"] == "ConfigMap":
                self.apply(object)
        found, = (o for o in objects if o["kind"] == "StatefulSet")
        return found

    def pod(self, stateful_set, ordinal):
        """Starts a pod, and does not wait for it to be started: pods of a set begin together."""
        spec = of_stateful_set(stateful_set, ordinal)
        for container in spec["spec"]["containers"]:
            container.pop("startupProbe", None)
        return self.node.run(spec, self.api, f"2{ordinal}")

    def inside(self, pod, *words):
        """As `kubectl exec`."""
        return subprocess.run(["ip", "netns", "exec", pod.netns, self.arguments.funicular, *words], capture_output=True, text=True, timeout=30)

    def status(self, pod):
        told = self.inside(pod, "peak", "status", "-o", "json")
        return json.loads(told.stdout) if told.returncode == 0 else {}

    def whole(self, pods):
        """Whether all are ready and agree on as many members, and the change that made them as many is over: a leader in the
        middle of one is never up to date by its own lease."""
        if not all(pod.ready() for pod in pods):
            return False
        told = [self.status(pod) for pod in pods]
        leads = [status for status in told if status.get("part") == "leader"]
        return all(len(status.get("members") or []) == len(pods) for status in told) and any(one["stale_ms"] == 0 for one in leads)

    def record(self, pod, name):
        told = self.inside(pod, "record", "add", "--ttl", "5", "peak", name, "A", "192.0.2.7")
        assert told.returncode == 0, (told.stdout, told.stderr)

    def has(self, pod, name):
        told = self.inside(pod, "record", "list", "peak")
        return name in told.stdout

    def run(self):
        zone = self.folder / "cluster.local"
        zone.write_text(CLUSTER_ZONE)
        names = subprocess.Popen([self.arguments.funicular, "peak", "--zone", f"cluster.local={zone}", "--listen", f"[{self.node.address}]:53"],
                                 stderr=open(self.folder / "names.log", "ab"))
        # Pods are held back until there is something that they can prove to each other.
        # Pods keep here what they were given at their start: it is to last.
        webhook = self.one_webhook(FUNICULAR_CERTIFICATE_LIFE="1h")
        secret = "/api/v1/namespaces/funicular/secrets/funicular-peak-cluster"
        until("the webhook has made Peak's certificate", lambda: self.api.ask("GET", secret)[0] == 200)
        try:
            self.life()
        except BaseException:
            for log in [*self.node.scratch.glob("*/*.log"), pathlib.Path(self.log)]:
                print(f"--- {log}\n{log.read_text()[-4000:]}")
            raise
        finally:
            self.node.stop()
            webhook.stop()
            names.terminate()
        print(f"{self.claims} claims hold")

    def life(self):
        first = self.pod(self.rendered("laptop"), 0)
        until("the first node serves", lambda: self.whole([first]))
        self.record(first, "before.peak")
        self.claim("one pod begins the registry by itself, with the certificate that the webhook has made")

        three = self.rendered("three-node")
        others = [self.pod(three, ordinal) for ordinal in (1, 2)]
        # The set has changed, so its controller makes the first pod anew as well.
        first.stop()
        pods = [self.pod(three, 0), *others]
        until(lambda: f"three nodes: {[self.status(pod) for pod in pods]}", lambda: self.whole(pods), 60)
        until("what was written before", lambda: all(self.has(pod, "before.peak") for pod in pods))
        self.record(pods[2], "grown.peak")
        until("the new record is everywhere", lambda: all(self.has(pod, "grown.peak") for pod in pods))
        self.claim("it grows to three when the overlay says so, and nothing is lost")

        pods[1].kill()
        shutil.rmtree(self.node.scratch / "disks/state-funicular-peak-1")
        pods[1] = self.pod(three, 1)
        until(lambda: f"the second node again: {[self.status(pod) for pod in pods]}", lambda: self.whole(pods), 120)
        until("it has everything", lambda: self.has(pods[1], "grown.peak"))
        self.claim("a pod that comes back without its disk takes the place of the one that had it")

        for pod in pods:
            assert pod.stop(), "it ends within its grace period"
        shutil.rmtree(self.node.scratch / "disks")
        pods = [self.pod(three, ordinal) for ordinal in (2, 1, 0)]
        until(lambda: f"a new cluster: {[self.status(pod) for pod in pods]}", lambda: self.whole(pods), 60)
        clusters = {self.status(pod)["cluster"] for pod in pods}
        assert len(clusters) == 1, clusters
        self.claim("three new pods that start at once begin one cluster")


if __name__ == "__main__":
    enclosed()
    StatefulSet(parser(__doc__).parse_args()).run()
