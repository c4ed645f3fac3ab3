"""Alert rules and dashboard against what every role really says of itself: a Prometheus scrapes two injected pods, Peak with
registry and slices, the webhook and a node agent, as the PodMonitors would have it, and is asked every query.

    monitoring.py FUNICULAR

Needs root, prometheus and promtool. Prints one line for each claim.
"""

import json, re, subprocess
import urllib.error, urllib.parse, urllib.request

import yaml

from control import DEPLOY, free_port, parser, until
from kubelet import enclosed
from pair import SPACE, Pair, calling, serving

# How often Prometheus looks, in seconds, and what Grafana makes of it.
INTERVAL = 1
WINDOW = "10s"

# Shown from their first event on, which this trial does not have; that the manual lists them is seen by manifests.py.
SELDOM = {"funicular_slices_moved_total", "funicular_dns_notices_total"}


def queries():
    """title, expression"""
    dashboard = json.loads((DEPLOY / "monitoring/dashboard.json").read_text())
    for panel in dashboard["panels"]:
        for target in panel.get("targets", []):
            yield panel["title"], target["expr"].replace("$__rate_interval", WINDOW)
    for group in rules()["groups"]:
        for rule in group["rules"]:
            # The rest would need a quarter of an hour of samples.
            yield rule["alert"], re.sub(r"\[\d+m\]", f"[{WINDOW}]", rule["expr"])


def rules():
    return yaml.safe_load((DEPLOY / "monitoring/alerts.yaml").read_text())["spec"]


class Monitored(Pair):
    def __init__(self, arguments):
        super().__init__(arguments)
        self.peak_metrics, self.node_metrics = free_port(), free_port()

    def peak(self):
        """With everything that Peak has metrics of."""
        command = super().peak_command()
        mesh = self.folder / "mesh"
        configuration = {
            "listen": f"[{self.node.address}]:53", "state": str(self.folder / "state"), "admin": {"metrics": f"[::]:{self.peak_metrics}", "listen": f"127.0.0.1:{free_port()}"},
            "zones": [{"name": name, "file": str(self.folder / name), "replicated": name == "shop.peak"} for name in ("shop.peak", "cluster.local")],
            "slices": {"listen": f"[::]:{free_port()}", "name": "orders.shop.peak", "certificate": str(mesh / "orders.shop.peak.crt"),
                       "key": str(mesh / "orders.shop.peak.key"), "trust": [{"issuer": "https://none.example", "jwks": str(self.empty_key_set())}],
                       "services": [{"name": "orders.shop.peak", "pods": ["spiffe://cluster.example/ns/shop/sa/orders"]}]}}
        file = self.folder / "peak.yaml"
        file.write_text(yaml.safe_dump(configuration))
        return subprocess.Popen([command[0], "peak", "--config", file], stderr=open(self.folder / "peak.log", "ab"))

    def empty_key_set(self):
        file = self.folder / "nobody.json"
        file.write_text('{"keys": []}')
        return file

    def agent(self):
        configuration = {"address": self.node.address, "spaces": [SPACE], "socket": str(self.folder / "node.sock"),
                         "pods": {"cgroup": "kubepods"}, "carrying": {"nodes": ["2001:db8:77::/64"]},
                         "admin": {"listen": f"127.0.0.1:{free_port()}", "metrics": f"[::]:{self.node_metrics}"}}
        file = self.folder / "node.yaml"
        file.write_text(yaml.safe_dump(configuration))
        return subprocess.Popen([self.arguments.funicular, "node", "--config", file], stderr=open(self.folder / "node.log", "ab"))

    def run(self):
        self.prepare()
        running = [self.peak(), self.agent()]
        webhook = self.one_webhook()
        try:
            orders = self.node.run(self.made("orders", serving(), True, config_map="orders", service_prefix=SPACE), self.api)
            subprocess.run(["ip", "route", "replace", SPACE, "via", orders.address], check=True)
            web = self.node.run(self.made("web", calling(), True), self.api)
            until("the application has called", lambda: "again" in web.running[0].said())
            # Something is refused everywhere.
            self.refusals(orders, True)
            targets = {"orders-1": f"[{orders.address}]:15020", "web-2": f"[{web.address}]:15020", "funicular-peak-0": f"[::1]:{self.peak_metrics}",
                       "funicular-webhook-1": f"127.0.0.1:{webhook.health}", "funicular-node-1": f"[::1]:{self.node_metrics}"}
            running.append(self.prometheus(targets))
            self.judge(len(targets))
        except BaseException:
            for log in [self.folder / "peak.log", self.folder / "node.log", self.folder / "prometheus.log"]:
                print(f"--- {log}\n{log.read_text()[-3000:] if log.exists() else 'none'}")
            raise
        finally:
            self.node.stop()
            webhook.stop()
            for process in running:
                process.terminate()
            for process in running:
                process.wait(20)
        print(f"{self.claims} claims hold")

    def prometheus(self, targets):
        written = self.folder / "rules.yaml"
        written.write_text(yaml.safe_dump(rules()))
        checked = subprocess.run(["promtool", "check", "rules", written], capture_output=True, text=True)
        assert checked.returncode == 0, checked.stdout + checked.stderr
        count = sum(len(group["rules"]) for group in rules()["groups"])
        assert f"SUCCESS: {count} rules found" in checked.stdout, checked.stdout
        self.claim(f"promtool takes all {count} rules")
        namespace = lambda pod: "funicular" if pod.startswith("funicular") else "shop"
        scraped = [{"targets": [at], "labels": {"pod": pod, "namespace": namespace(pod)}} for pod, at in targets.items()]
        configuration = {"global": {"scrape_interval": f"{INTERVAL}s", "evaluation_interval": "1s"}, "rule_files": [str(written)],
                         "scrape_configs": [{"job_name": "funicular", "static_configs": scraped}]}
        (self.folder / "prometheus.yaml").write_text(yaml.safe_dump(configuration))
        self.port = free_port()
        return subprocess.Popen(["prometheus", f"--config.file={self.folder}/prometheus.yaml", f"--storage.tsdb.path={self.folder}/samples",
                                 f"--web.listen-address=127.0.0.1:{self.port}"], stderr=open(self.folder / "prometheus.log", "ab"))

    def ask(self, path, **query):
        url = f"http://127.0.0.1:{self.port}/api/v1/{path}?{urllib.parse.urlencode(query, doseq=True)}"
        try:
            with urllib.request.urlopen(url, timeout=10) as answer:
                return json.load(answer)["data"]
        except urllib.error.HTTPError as error:
            if error.code == 503:
                return None
            raise AssertionError((query, error.read().decode())) from error
        except OSError:
            return None

    def judge(self, targets):
        ups = lambda: [sample["value"][1] for sample in (self.ask("query", query="up") or {"result": []})["result"]]
        until(lambda: f"all are scraped: {ups()}", lambda: ups() == ["1"] * targets)
        for metric in ("funicular_connections_total", "funicular_dns_responses_total"):
            until("samples to compute rates from", lambda: (self.ask("query", query=f"count_over_time({metric}[{WINDOW}])") or {}).get("result"))
        known = set(self.ask("label/__name__/values"))
        asked = 0
        for title, expression in queries():
            assert self.ask("query", query=expression) is not None, title
            metrics = set(re.findall(r"funicular_[a-z_]+", expression))
            missing = {metric for metric in metrics if re.sub("_(bucket|sum|count)$", "", metric) not in SELDOM} - known
            assert not missing, (title, missing)
            wanted = {label.strip() for by in re.findall(r"by \(([^)]*)\)", expression) for label in by.split(",")}
            wanted |= {label for matchers in re.findall(r"\{([^}]*)\}", expression) for label in re.findall(r"(\w+)\s*[!=]", matchers)}
            for metric in metrics & known:
                labels = {label for series in self.ask("series", **{"match[]": metric}) for label in series}
                assert wanted <= labels, (title, metric, wanted - labels)
            asked += 1
        self.claim(f"all {asked} queries of dashboard and rules name metrics and labels that are there")
        for title, expression in queries():
            if title in ("Connections carried", "Refusals", "Answers of Peak", "Open connections", "Memory", "Processor time", "What a connection costs"):
                until(f"{title}: {expression}", lambda: self.ask("query", query=expression)["result"])
        self.claim("and those that something has happened for have something to show")


if __name__ == "__main__":
    enclosed()
    Monitored(parser(__doc__).parse_args()).run()
