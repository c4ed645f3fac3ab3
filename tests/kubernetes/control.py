"""What every trial with Kubernetes needs: an API server to talk to, webhooks beside it, and authorities."""

import argparse, json, os, pathlib, signal, socket, ssl, subprocess, tempfile, time
import urllib.error, urllib.request

import yaml

import api_server
from kubelet import until

HERE = pathlib.Path(__file__).parent
DEPLOY = HERE.parent.parent / "deploy"
MUTATING = "/apis/admissionregistration.k8s.io/v1/mutatingwebhookconfigurations"


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class Api:
    def __init__(self, server, token=None, ca=None):
        self.server, self.token = server, token
        self.context = ssl.create_default_context(cafile=ca) if ca else None

    def ask(self, method, path, body=None, kind="application/json"):
        """status, object"""
        request = urllib.request.Request(self.server + path, method=method, headers={"Content-Type": kind},
                                         data=None if body is None else json.dumps(body).encode())
        if self.token:
            request.add_header("Authorization", f"Bearer {self.token}")
        try:
            with urllib.request.urlopen(request, timeout=30, context=self.context) as answer:
                return answer.status, json.load(answer)
        except urllib.error.HTTPError as error:
            return error.code, json.load(error)

    def must(self, method, path, body=None, kind="application/json"):
        status, object = self.ask(method, path, body, kind)
        assert status < 300, (method, path, status, object)
        return object


class Webhook:
    """One replica."""

    def __init__(self, program, kubeconfig, port, log, **settings):
        self.health = free_port()
        self.log = open(log, "ab")
        environment = {
            "FUNICULAR_LISTEN": f"127.0.0.1:{port}", "FUNICULAR_KUBECONFIG": kubeconfig, "FUNICULAR_NAMESPACE": "funicular",
            "FUNICULAR_CERTIFICATE_NAMES": "[127.0.0.1]", "FUNICULAR_ADMIN_LISTEN": f"127.0.0.1:{free_port()}",
            "FUNICULAR_ADMIN_METRICS": f"127.0.0.1:{self.health}", "FUNICULAR_SURVEY": "1s",
            "FUNICULAR_CERTIFICATE_LIFE": "1m", "FUNICULAR_PEAK_SECRET": "funicular-peak-cluster", **settings}
        self.process = subprocess.Popen([program, "webhook"], env=environment, stderr=self.log)

    def get(self, path):
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.health}{path}", timeout=5) as answer:
                return answer.status, answer.read().decode()
        except (urllib.error.HTTPError, OSError) as error:
            return getattr(error, "code", 0), ""

    def metric(self, name):
        total = 0.0
        for line in self.get("/metrics")[1].splitlines():
            if line.startswith(name + "{") or line.startswith(name + " "):
                total += float(line.rsplit(" ", 1)[1])
        return total

    def stop(self):
        self.process.send_signal(signal.SIGTERM)
        self.process.send_signal(signal.SIGTERM)
        self.process.wait(20)


def written(object):
    """A file with the object, as JSON."""
    file = tempfile.NamedTemporaryFile("w", suffix=".yaml", delete=False)
    json.dump(object, file)
    file.close()
    return file.name


def kubeconfig(server, ca=None, token=None, namespace="funicular"):
    """Whoever has this file talks to the server, as the token's owner."""
    cluster = {"server": server, **({"certificate-authority": os.path.abspath(ca)} if ca else {})}
    return written({"apiVersion": "v1", "kind": "Config", "current-context": "t",
                    "clusters": [{"name": "t", "cluster": cluster}], "users": [{"name": "t", "user": {"token": token} if token else {}}],
                    "contexts": [{"name": "t", "context": {"cluster": "t", "user": "t", "namespace": namespace}}]})


def openssl(*words, given=None):
    done = subprocess.run(["openssl", *map(str, words)], input=given, capture_output=True)
    assert done.returncode == 0, (words, done.stderr)
    return done.stdout


class Authority:
    """Certificates in a folder: ca.crt, and for each name what `certificate` makes."""

    def __init__(self, folder):
        self.folder = pathlib.Path(folder)
        self.folder.mkdir(parents=True, exist_ok=True)
        self.file, self.days = self.folder / "ca.crt", 2
        openssl("req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2", "-subj", "/CN=trial",
                "-addext", "keyUsage=critical,keyCertSign", "-keyout", self.folder / "ca.key", "-out", self.file)

    def certificate(self, *names):
        """Files of a certificate for DNS names and addresses, and of its key."""
        stem = names[0].replace(":", "-")
        request, chain, key = (self.folder / f"{stem}.{end}" for end in ("csr", "crt", "key"))
        openssl("req", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-subj", "/CN=trial", "-keyout", key, "-out", request)
        kinds = ",".join(("IP:" if ":" in name or name[0].isdigit() else "DNS:") + name for name in names)
        extensions = self.folder / f"{stem}.ext"
        extensions.write_text(f"subjectAltName={kinds}\nextendedKeyUsage=serverAuth,clientAuth\nkeyUsage=digitalSignature\n"
                              "basicConstraints=critical,CA:FALSE\nauthorityKeyIdentifier=keyid\n")
        openssl("x509", "-req", "-in", request, "-CA", self.file, "-CAkey", self.folder / "ca.key", "-CAcreateserial", "-days", self.days,
                "-extfile", extensions, "-out", chain)
        return chain, key


PLACES = {
    "Namespace": "/api/v1/namespaces", "ConfigMap": "/api/v1/namespaces/{}/configmaps", "Secret": "/api/v1/namespaces/{}/secrets",
    "ServiceAccount": "/api/v1/namespaces/{}/serviceaccounts", "Pod": "/api/v1/namespaces/{}/pods",
    "ClusterRole": "/apis/rbac.authorization.k8s.io/v1/clusterroles",
    "ClusterRoleBinding": "/apis/rbac.authorization.k8s.io/v1/clusterrolebindings",
    "Role": "/apis/rbac.authorization.k8s.io/v1/namespaces/{}/roles",
    "RoleBinding": "/apis/rbac.authorization.k8s.io/v1/namespaces/{}/rolebindings",
    "MutatingWebhookConfiguration": MUTATING,
    "Node": "/api/v1/nodes", "Lease": "/apis/coordination.k8s.io/v1/namespaces/{}/leases",
    **{kind: "/apis/apps/v1/namespaces/{}/" + kind.lower() + "s" for kind in ("Deployment", "StatefulSet", "DaemonSet")},
}


def parser(what):
    parser = argparse.ArgumentParser(description=what.splitlines()[0])
    parser.add_argument("funicular")
    # 1 ms is what the program as it is shipped has to keep; this one was built for tests.
    parser.add_argument("--median", type=float, default=0.01)
    parser.add_argument("--server", help="a real API server; without it, this folder's own")
    parser.add_argument("--token")
    parser.add_argument("--ca")
    return parser


class Control:
    """An API server with what `deploy/` says of the webhook in it, and the claims that have held so far."""

    def __init__(self, arguments, own=None):
        self.arguments, self.claims = arguments, 0
        self.own = None if arguments.server else own or api_server.ApiServer()
        self.server, self.ca = (arguments.server, arguments.ca) if arguments.server else (self.own.url, self.own.ca)
        self.api = Api(self.server, arguments.token, self.ca)
        self.minor = int("".join(c for c in self.api.must("GET", "/version")["minor"] if c.isdigit()))
        self.native = self.minor >= 29
        self.log = tempfile.mkstemp(suffix=".log")[1]
        self.namespace("funicular", **{"funicular.dev/inject": "false"})
        for object in yaml.safe_load_all((DEPLOY / "base/webhook-rbac.yaml").read_text()):
            self.apply(object)

    def claim(self, text):
        self.claims += 1
        print(f"ok {self.claims} {text}", flush=True)

    def apply(self, object):
        place = PLACES[object["kind"]].format(object["metadata"].get("namespace", "default"))
        status, answer = self.api.ask("POST", place, object)
        # Trials of the real server share one, and have keys of their own.
        if status == 409 and object["kind"] in ("ConfigMap", "Secret"):
            status, answer = self.api.ask("PUT", f"{place}/{object['metadata']['name']}", object)
        assert status in (200, 201, 409), (object["kind"], object["metadata"]["name"], status, answer)
        return answer

    def namespace(self, name, **labels):
        self.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": labels}})
        self.account(name, "default")

    def account(self, namespace, name):
        """Nobody runs the controller that would make it, and its token."""
        self.apply({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": name, "namespace": namespace},
                    "automountServiceAccountToken": False})

    def token(self, namespace, account):
        path = f"/api/v1/namespaces/{namespace}/serviceaccounts/{account}/token"
        spec = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": {"expirationSeconds": 3600, "audiences": []}}
        return self.api.must("POST", path, spec)["status"]["token"]

    def as_webhook(self):
        """The API server, to whoever has the token of the webhook's account."""
        return Api(self.server, self.token("funicular", "funicular-webhook"), self.ca)

    def configuration(self, port):
        """The one of deploy/, with the address of this machine in place of the Service."""
        configuration = yaml.safe_load((DEPLOY / "base/webhook-configuration.yaml").read_text())
        for hook in configuration["webhooks"]:
            hook["clientConfig"] = {"url": f"https://127.0.0.1:{port}/inject"}
        return configuration

    def webhook(self, **settings):
        config = kubeconfig(self.server, self.ca, self.as_webhook().token)
        return Webhook(self.arguments.funicular, config, settings.pop("port"), self.log, **settings)

    def one_webhook(self, **settings):
        """A webhook, ready and asked by the API server."""
        port, configuration = free_port(), MUTATING + "/funicular-webhook"
        # An earlier trial's, whose webhook is gone.
        if self.api.ask("GET", configuration)[0] == 200:
            self.api.must("DELETE", configuration)
        self.apply(self.configuration(port))
        webhook = self.webhook(port=port, **settings)
        until("the webhook is ready", lambda: webhook.get("/ready")[0] == 200)
        return webhook
