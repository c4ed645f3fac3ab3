"""The webhook against an API server: this folder's own, or a real one.

    admission.py FUNICULAR                                   with api_server.py
    admission.py FUNICULAR --server URL --token T --ca FILE  with a real one

Needs kubernetes-validate (PyPI), whose schemas judge what comes out. Prints one line for each claim.
"""

import base64, concurrent.futures, copy, json, pathlib, shutil, ssl, subprocess, sys, tempfile, time

import kubernetes_validate
import yaml

from control import DEPLOY, HERE, MUTATING, Authority, Control, free_port, parser, until


def documents(name):
    return [d for d in yaml.safe_load_all((HERE / "pods" / name).read_text()) if d]


class Trial(Control):
    def make(self, namespace, pod, dry_run=False):
        return self.api.ask("POST", f"/api/v1/namespaces/{namespace}/pods{'?dryRun=All' if dry_run else ''}", pod)

    def run(self):
        port = free_port()
        self.namespace("meshed", **{"funicular.dev/inject": "true"})
        self.namespace("plain")
        # A pod that is there before anybody asks: the survey will miss its sidecar.
        early = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "early"}, "spec": {"containers": [{"name": "web", "image": "web"}]}}
        assert self.make("meshed", early)[0] == 201
        self.api.must("POST", MUTATING, self.configuration(port))
        first, second = self.webhook(port=port), self.webhook(port=free_port())
        self.replicas = [first, second]
        try:
            for replica in self.replicas:
                until("ready", lambda: replica.get("/ready")[0] == 200)
            self.bundle(first)
            self.survey(first)
            self.pods(first)
            self.refusals(first)
            self.opting(first)
            self.events()
            if self.own:
                self.native_shape()
                self.workloads()
                self.watches(first)
                self.other_webhook()
                self.burst(first)
                self.renewal(first)
                self.rights()
                self.cert_manager()
            else:
                self.other_webhook_real()
                self.burst(first)
                self.confined()
        except BaseException:
            print(pathlib.Path(self.log).read_text()[-6000:], file=sys.stderr)
            raise
        finally:
            for replica in self.replicas:
                replica.stop()
        print(f"{self.claims} claims hold")

    def bundle(self, webhook):
        configuration = self.api.must("GET", f"{MUTATING}/funicular-webhook")
        bundles = {hook["clientConfig"]["caBundle"] for hook in configuration["webhooks"]}
        secret = self.api.must("GET", "/api/v1/namespaces/funicular/secrets/funicular-webhook-certificate")
        assert bundles == {secret["data"]["ca.crt"]}, "caBundle is the Secret's authority"
        assert webhook.metric("funicular_webhook_certificate_expiry_timestamp_seconds") > time.time()
        self.claim("two replicas that begin at once agree on one authority, which every caBundle holds")

    def survey(self, webhook):
        until("the early pod is missed", lambda: webhook.metric("funicular_inject_missing_pods") == 1)
        self.api.must("DELETE", "/api/v1/namespaces/meshed/pods/early?gracePeriodSeconds=0")
        until("nobody is missed", lambda: webhook.metric("funicular_inject_missing_pods") == 0)
        self.claim("a pod made before its sidecar was asked for is reported, and no longer when it is gone")

    def judge(self, pod):
        kubernetes_validate.validate(pod, "1.37", strict=True)

    def sidecar(self, pod):
        lists = [pod["spec"].get("initContainers") or [], pod["spec"]["containers"]]
        return [container["name"] for items in lists for container in items if container["name"].startswith("funicular")]

    def offline(self, command, pod):
        done = subprocess.run([self.arguments.funicular, command, "-", "-o", "json"], input=json.dumps(pod),
                              capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)["items"][0]

    def pods(self, webhook):
        count = 0
        for pod in documents("injected.yaml"):
            name = pod["metadata"].get("name") or pod["metadata"]["generateName"]
            if self.own is None and not self.possible_in_1_20(pod):
                continue
            if not self.native and pod["spec"].get("restartPolicy", "Always") != "Always":
                continue
            status, made = self.make("meshed", pod)
            assert status == 201, (name, made)
            assert self.sidecar(made) == ["funicular-init", "funicular"], (name, self.sidecar(made))
            again = copy.deepcopy(made)
            for field in ("resourceVersion", "uid", "creationTimestamp", "generateName"):
                again["metadata"].pop(field, None)
            again.pop("status", None)
            again["metadata"]["name"] = f"again-{count}"
            status, twice = self.make("meshed", again, dry_run=True)
            assert status == 201, (name, twice)
            for key in ("metadata", "spec"):
                for object in (again, twice):
                    for field in ("uid", "creationTimestamp", "resourceVersion", "namespace", "managedFields", "selfLink"):
                        object["metadata"].pop(field, None)
                assert twice[key] == again[key], (name, key)
            if self.own:
                judged = copy.deepcopy(made)
                judged["metadata"].pop("managedFields", None)
                self.judge(judged)
                restored = self.offline("uninject", made)
                for field in ("resourceVersion", "uid", "namespace"):
                    restored["metadata"].pop(field, None)
                if "generateName" in pod["metadata"]:
                    restored["metadata"].pop("name", None)
                assert restored == pod, (name, restored)
            count += 1
        assert count >= (30 if self.own else 15), count
        more = "valid, injected twice the same as once, and restored" if self.own else "taken by the server, and injected twice the same as once"
        self.claim(f"{count} awkward pods come out with a sidecar, {more}")

    @staticmethod
    def possible_in_1_20(pod):
        """What the real server of the test, six years old, refuses by itself."""
        newer = ("restartPolicy: ", "grpc", "ephemeral:")
        text = yaml.safe_dump(pod)
        inits = pod["spec"].get("initContainers") or []
        return not any("restartPolicy" in c for c in inits) and "grpc" not in text and "ephemeral:" not in text and \
            pod["metadata"].get("name") not in ("privileged", "injected-label-set", "finalized", "devices", "scheduled", "generated-") and \
            "managedFields" not in text and "generateName" not in text and pod["metadata"]["name"] not in ("many-inits-x",)

    def refusals(self, webhook):
        before = webhook.metric("funicular_inject_total")
        for pod in documents("refused.yaml"):
            reason = pod["metadata"]["name"]
            status, answer = self.make("meshed", pod)
            assert status == 403 and f"({reason})" in answer["message"], (reason, status, answer)
        if self.native:
            classic = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "j", "annotations": {"config.funicular.dev/native-sidecar": "false"}},
                       "spec": {"restartPolicy": "Never", "containers": [{"name": "w", "image": "w"}]}}
            status, answer = self.make("meshed", classic)
            assert status == 403 and "(job-needs-native-sidecar)" in answer["message"], answer
        assert webhook.metric("funicular_inject_total") > before
        self.claim("every pod that cannot have a sidecar is refused with the reason")

    def opting(self, webhook):
        pod = lambda name, label=None: {"apiVersion": "v1", "kind": "Pod", "metadata": {
            "name": name, "labels": {"funicular.dev/inject": label} if label else {}}, "spec": {"containers": [{"name": "web", "image": "web"}]}}
        for namespace, label, injected in [("plain", None, False), ("plain", "true", True), ("plain", "false", False),
                                           ("meshed", "false", False), ("meshed", "true", True), ("meshed", None, True)]:
            status, made = self.make(namespace, pod(f"opting-{label}".lower(), label))
            assert status == 201 and bool(self.sidecar(made)) == injected, (namespace, label, made)
        self.api.must("PATCH", "/api/v1/namespaces/plain", [{"op": "add", "path": "/metadata/annotations",
                      "value": {"config.funicular.dev/cpu-request": "77m"}}], "application/json-patch+json")

        def wished():
            status, made = self.make("plain", pod("wished", "true"), dry_run=True)
            assert status == 201, made
            containers = (made["spec"].get("initContainers") or []) + made["spec"]["containers"]
            ours = [c for c in containers if c["name"] == "funicular"]
            return ours[0]["resources"]["requests"]["cpu"] == "77m" and made["metadata"]["annotations"]["config.funicular.dev/cpu-request"] == "77m"
        until("the namespace's wish is followed", wished)
        self.claim("the pod's word wins over its namespace's, whose wishes are copied onto its pods")

    def events(self):
        owner = {"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "web-5d4f8", "uid": "11111111-1111-1111-1111-111111111111", "controller": True}
        for name, spec in [("told-a", {}), ("told-b", {}), ("told-c", {"hostNetwork": True})]:
            self.make("meshed", {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "ownerReferences": [owner]},
                                 "spec": {"containers": [{"name": "web", "image": "web"}], **spec}})

        def told():
            items = self.api.must("GET", "/api/v1/namespaces/meshed/events")["items"]
            return sorted(e["reason"] for e in items if e["involvedObject"]["name"] == "web-5d4f8")
        until("events on the owner", lambda: told() == ["Injected", "InjectionRefused"])
        self.claim("the owner is told once what becomes of its pods, and once why not")

    def native_shape(self):
        status, made = self.make("meshed", {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "shape"}, "spec": {
            "initContainers": [{"name": "migrate", "image": "m"}], "containers": [{"name": "web", "image": "web"}]}})
        inits = made["spec"]["initContainers"]
        assert [c["name"] for c in inits] == ["funicular-init", "funicular", "migrate"]
        assert inits[1]["restartPolicy"] == "Always" and "add" not in inits[1]["securityContext"]["capabilities"]
        self.claim("the sidecar is there before every other init container and has no capability")

    def workloads(self):
        """The pods of each kind of workload as its controller makes them, and the workload's manifest offline."""
        groups = {"Deployment": "apps/v1", "StatefulSet": "apps/v1", "DaemonSet": "apps/v1", "Job": "batch/v1", "CronJob": "batch/v1"}
        for kind, group in groups.items():
            name, labels = kind.lower(), {"app": kind.lower()}
            ends = kind in ("Job", "CronJob")
            spec = {"containers": [{"name": "work", "image": "w"}], **({"restartPolicy": "Never"} if ends else {})}
            template = {"metadata": {"labels": labels}, "spec": spec}
            body = {"Job": {"template": template}, "CronJob": {"schedule": "@daily", "jobTemplate": {"spec": {"template": template}}},
                    "StatefulSet": {"serviceName": name}}.get(kind, {})
            if not ends:
                body.update(selector={"matchLabels": labels}, template=template)
            manifest = {"apiVersion": group, "kind": kind, "metadata": {"name": name, "namespace": "meshed"}, "spec": body}
            self.judge(manifest)
            namespace = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "meshed", "labels": {"funicular.dev/inject": "true"}}}
            told = subprocess.run([self.arguments.funicular, "inject", "-", "-o", "json"], capture_output=True, text=True,
                                  input=json.dumps(namespace) + "\n---\n" + json.dumps(manifest))
            assert told.returncode == 0, told.stderr
            injected, = (item for item in json.loads(told.stdout)["items"] if item["kind"] == kind)
            assert "funicular-init" in json.dumps(injected), kind
            self.judge(injected)
            assert self.offline("uninject", injected) == manifest, kind
            owner = {"apiVersion": group, "kind": kind, "name": name, "uid": "22222222-2222-2222-2222-222222222222", "controller": True, "blockOwnerDeletion": True}
            named = {"name": f"{name}-0"} if kind == "StatefulSet" else {"generateName": f"{name}-5d4f8-"}
            pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {**template["metadata"], **named, "ownerReferences": [owner]}, "spec": spec}
            status, made = self.make("meshed", pod)
            assert status == 201 and self.sidecar(made) == ["funicular-init", "funicular"], (kind, made)
            self.judge(made)
        self.claim(f"pods of {', '.join(groups)} get their sidecars, and so do the manifests of these offline: valid, and restored")

    def watches(self, webhook):
        self.own.store.forget_history()
        self.namespace("later", **{"funicular.dev/inject": "true"})
        pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p"}, "spec": {"containers": [{"name": "web", "image": "web"}]}}
        assert self.sidecar(self.make("later", pod)[1]), "a namespace that no watch has told of yet"
        self.api.must("PATCH", "/api/v1/namespaces/later", [{"op": "add", "path": "/metadata/annotations",
                      "value": {"config.funicular.dev/log-level": "trace"}}], "application/json-patch+json")
        pod["metadata"]["labels"] = {"funicular.dev/inject": "true"}
        until("the watch has begun anew", lambda: "trace" in json.dumps(self.make("later", pod, dry_run=True)[1]["spec"]))
        self.claim("a watch that is too old (410) is begun anew, and a namespace just made is asked for")

    def other_webhook(self):
        """A webhook after ours that changes our container and adds another, by which ours is asked again."""
        store, ask = self.own.store, self.own.store.ask
        hook = {"name": "other.example", "clientConfig": {"url": "https://other.example/"}}

        def asked(which, namespace, pod, dry_run):
            if which["name"] != "other.example":
                return ask(which, namespace, pod, dry_run)
            pod = copy.deepcopy(pod)
            for container in pod["spec"].get("initContainers", []) + pod["spec"]["containers"]:
                container["image"] = "mirror.example/" + container["image"]
            pod["spec"]["containers"].append({"name": "other", "image": "o", "livenessProbe": {"httpGet": {"port": 81}}})
            pod["spec"]["initContainers"].insert(0, {"name": "before", "image": "b"})
            return pod
        store.ask = asked
        configuration = {"metadata": {"name": "zz-other"}, "webhooks": [hook]}
        self.api.must("POST", MUTATING, configuration)
        pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "reinvoked"}, "spec": {"containers": [{"name": "web", "image": "web"}]}}
        status, made = self.make("meshed", pod)
        assert status == 201, made
        assert [c["name"] for c in made["spec"]["initContainers"]] == ["before", "funicular-init", "funicular"], made["spec"]["initContainers"]
        assert made["spec"]["containers"][1]["livenessProbe"]["httpGet"]["port"] == 15020
        self.judge(made)
        self.api.must("DELETE", f"{MUTATING}/zz-other")
        store.ask = ask
        self.claim("asked again after another webhook, it takes in the probe that came and moves nothing")

    def other_webhook_real(self):
        """A second real webhook behind ours, with a certificate of ours for this machine."""
        import http.server, threading
        secret = self.api.must("GET", "/api/v1/namespaces/funicular/secrets/funicular-webhook-certificate")
        folder = pathlib.Path(tempfile.mkdtemp())
        for key in ("tls.crt", "tls.key"):
            (folder / key).write_bytes(base64.b64decode(secret["data"][key]))

        class Other(http.server.BaseHTTPRequestHandler):
            asked = 0

            def log_message(self, *_):
                pass

            def do_POST(self):
                review = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                Other.asked += 1
                ops = [{"op": "add", "path": "/spec/containers/-", "value": {"name": "other", "image": "o", "livenessProbe": {"httpGet": {"port": 81}}}}]
                if any(c["name"] == "other" for c in review["request"]["object"]["spec"]["containers"]):
                    ops = []
                answer = json.dumps({"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "response": {
                    "uid": review["request"]["uid"], "allowed": True, "patchType": "JSONPatch",
                    "patch": base64.b64encode(json.dumps(ops).encode()).decode()}}).encode()
                self.send_response(200)
                self.send_header("Content-Length", str(len(answer)))
                self.end_headers()
                self.wfile.write(answer)
        server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Other)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(folder / "tls.crt", folder / "tls.key")
        server.socket = context.wrap_socket(server.socket, server_side=True)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        self.api.must("POST", MUTATING, {"apiVersion": "admissionregistration.k8s.io/v1", "kind": "MutatingWebhookConfiguration",
            "metadata": {"name": "zz-other"}, "webhooks": [{"name": "other.example.com", "sideEffects": "None", "admissionReviewVersions": ["v1"],
            "failurePolicy": "Fail", "reinvocationPolicy": "IfNeeded",
            "clientConfig": {"url": f"https://127.0.0.1:{server.server_address[1]}/", "caBundle": secret["data"]["ca.crt"]},
            "rules": [{"operations": ["CREATE"], "apiGroups": [""], "apiVersions": ["v1"], "resources": ["pods"]}]}]})
        pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "reinvoked"}, "spec": {"containers": [{"name": "web", "image": "web"}]}}

        def reinvoked():
            status, made = self.make("meshed", pod, dry_run=True)
            assert status == 201, made
            others = [c for c in made["spec"]["containers"] if c["name"] == "other"]
            return others and others[0]["livenessProbe"]["httpGet"]["port"] == 15020 and self.sidecar(made) == ["funicular-init", "funicular"]
        until("the second webhook is asked, and ours again", reinvoked)
        self.api.must("DELETE", f"{MUTATING}/zz-other")
        self.claim("asked again by a real API server after another webhook, it takes in the probe that came")

    def burst(self, webhook):
        count, pod = 1000, {"apiVersion": "v1", "kind": "Pod", "metadata": {"generateName": "burst-"}, "spec": {"containers": [
            {"name": "web", "image": "web", "readinessProbe": {"httpGet": {"port": 80}}}]}}
        dry_run = self.own is None
        before = webhook.metric("funicular_inject_total")
        begun = time.monotonic()
        with concurrent.futures.ThreadPoolExecutor(16) as pool:
            results = list(pool.map(lambda _: self.make("meshed", pod, dry_run), range(count)))
        seconds = time.monotonic() - begun
        wrong = [answer for status, answer in results if status != 201 or not self.sidecar(answer)]
        assert not wrong, (len(wrong), wrong[0])
        buckets, total = {}, webhook.metric("funicular_inject_seconds_count")
        for line in webhook.get("/metrics")[1].splitlines():
            if line.startswith("funicular_inject_seconds_bucket"):
                buckets[float(line.split('le="')[1].split('"')[0])] = float(line.rsplit(" ", 1)[1])
        median = min(le for le, so_far in buckets.items() if so_far >= total / 2)
        assert median <= self.arguments.median, f"median {median} s"
        asked = webhook.metric("funicular_inject_total") - before
        self.claim(f"a burst of {count} pods in {seconds:.1f} s without an error, asked {asked:.0f} times; half of all answers within {median * 1000:g} ms")

    def rights(self):
        assert set(granted()) == set(RIGHTS), set(granted()) ^ set(RIGHTS)
        # Renewing takes longer than this test, and a namespace is asked for only when its first pod is faster than the watch.
        seldom = {("update", "secrets", "funicular-webhook-certificate"), ("update", "secrets", "funicular-peak-cluster"), ("get", "namespaces", None)}
        assert set(RIGHTS) - seldom <= self.own.store.asked <= set(RIGHTS), self.own.store.asked ^ set(RIGHTS)
        self.claim(f"the webhook has the {len(RIGHTS)} rights that it uses and no other")

    def confined(self):
        """By the webhook's own token the real server refuses what the manifest does not grant."""
        webhook = self.as_webhook()
        for method, path in [("GET", "/api/v1/namespaces/meshed/secrets"), ("GET", "/api/v1/namespaces/meshed/pods/nobody"),
                             ("GET", "/api/v1/namespaces/funicular/secrets/another"), ("DELETE", "/api/v1/namespaces/meshed"),
                             ("GET", f"{MUTATING}/another"), ("GET", "/api/v1/nodes"), ("GET", "/api/v1/namespaces/meshed/events")]:
            status, answer = webhook.ask(method, path)
            assert status == 403, (method, path, status, answer)
        self.claim("all of that by a service account's token with the manifest's rights, which give it nothing else")

    def renewal(self, webhook):
        """The Secret is lost: a new authority is made, published and served, without a restart."""
        old = self.api.must("GET", "/api/v1/namespaces/funicular/secrets/funicular-webhook-certificate")["data"]
        self.api.must("DELETE", "/api/v1/namespaces/funicular/secrets/funicular-webhook-certificate")
        renewed = lambda: (self.api.ask("GET", "/api/v1/namespaces/funicular/secrets/funicular-webhook-certificate")[1].get("data") or old)["ca.crt"] != old["ca.crt"]
        until("a new authority", renewed)
        pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "renewed"}, "spec": {"containers": [{"name": "web", "image": "web"}]}}
        until("the new certificate is believed", lambda: self.make("meshed", pod, dry_run=True)[0] == 201)
        self.claim("a Secret that is lost is made anew, published and served by all replicas without a restart")


    def cert_manager(self):
        """Files that somebody else renews: the webhook serves them, and leaves caBundle to whoever made them."""
        # The others would take it back.
        while self.replicas:
            self.replicas.pop().stop()
        folder = pathlib.Path(tempfile.mkdtemp())
        authority = Authority(folder)
        served = [folder / "served.crt", folder / "served.key"]
        issue = lambda: [shutil.copy(*pair) for pair in zip(authority.certificate("127.0.0.1"), served)]
        issue()
        port = free_port()
        configuration = self.configuration(port)
        configuration["metadata"]["annotations"] = {"cert-manager.io/inject-ca-from": "funicular/funicular-webhook"}
        bundle = base64.b64encode(authority.file.read_bytes()).decode()
        for hook in configuration["webhooks"]:
            hook["clientConfig"]["caBundle"] = bundle
        self.api.must("DELETE", f"{MUTATING}/funicular-webhook")
        self.api.must("POST", MUTATING, configuration)
        webhook = self.webhook(port=port, FUNICULAR_CERTIFICATE_FILE=str(served[0]), FUNICULAR_CERTIFICATE_KEY=str(served[1]))
        self.replicas.append(webhook)
        until("ready", lambda: webhook.get("/ready")[0] == 200)
        pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "by-file"}, "spec": {"containers": [{"name": "web", "image": "web"}]}}
        assert self.sidecar(self.make("meshed", pod, dry_run=True)[1])
        ends = webhook.metric("funicular_webhook_certificate_expiry_timestamp_seconds")
        authority.days = 5
        issue()
        until("the renewed certificate is served", lambda: webhook.metric("funicular_webhook_certificate_expiry_timestamp_seconds") > ends, 60)
        assert self.sidecar(self.make("meshed", pod, dry_run=True)[1])
        kept = self.api.must("GET", f"{MUTATING}/funicular-webhook")["webhooks"]
        assert {hook["clientConfig"]["caBundle"] for hook in kept} == {bundle}
        self.claim("a certificate from files, as cert-manager writes them, is served and renewed, and caBundle left alone")


# Every right of the webhook, and why it has it.
RIGHTS = {
    ("list", "namespaces", None): "their labels and annotations decide what their pods get",
    ("watch", "namespaces", None): "they change",
    ("get", "namespaces", None): "a pod may be made in one before the watch tells of it",
    ("list", "pods", None): "the survey finds those without their sidecar; their metadata alone is asked for",
    ("create", "events", None): "makers of pods are told what becomes of them",
    ("get", "mutatingwebhookconfigurations", "funicular-webhook"): "to see whether its caBundle is up to date",
    ("patch", "mutatingwebhookconfigurations", "funicular-webhook"): "to bring it up to date",
    ("create", "secrets", None): "the first replica makes the certificate",
    ("get", "secrets", "funicular-webhook-certificate"): "the others find it",
    ("update", "secrets", "funicular-webhook-certificate"): "it is renewed",
    ("get", "secrets", "funicular-peak-cluster"): "Peak's nodes belong together by it",
    ("update", "secrets", "funicular-peak-cluster"): "it is renewed",
}


def granted():
    for role in yaml.safe_load_all((DEPLOY / "base/webhook-rbac.yaml").read_text()):
        for rule in role.get("rules", []):
            for verb in rule["verbs"]:
                for resource in rule["resources"]:
                    for name in rule.get("resourceNames", [None]):
                        yield verb, resource, name


if __name__ == "__main__":
    Trial(parser(__doc__).parse_args()).run()
