"""As much of Kubernetes' API as the webhook talks to, in memory: objects with versions and conflicts, watches with
bookmarks that grow too old (410), JSON Patch, and admission over TLS as a real server does it, checked against the
caBundle that the webhook has patched. Nothing is validated here: the schemas judge what comes out.
"""

import base64, copy, hashlib, http.client, itertools, json, socket, ssl, subprocess, tempfile, threading, time, urllib.parse
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

KINDS = {"pods": "Pod", "namespaces": "Namespace", "secrets": "Secret", "events": "Event", "configmaps": "ConfigMap",
         "serviceaccounts": "ServiceAccount", "clusterroles": "ClusterRole", "clusterrolebindings": "ClusterRoleBinding",
         "roles": "Role", "rolebindings": "RoleBinding", "mutatingwebhookconfigurations": "MutatingWebhookConfiguration",
         "deployments": "Deployment", "daemonsets": "DaemonSet", "statefulsets": "StatefulSet", "nodes": "Node", "leases": "Lease"}
# Kinds of the whole cluster.
CLUSTERED = {"namespaces", "mutatingwebhookconfigurations", "clusterroles", "clusterrolebindings", "nodes"}
ISSUER = "https://kubernetes.default.svc"


def patched(document, ops):
    """RFC 6902: add, replace, remove, test."""
    document = copy.deepcopy(document)
    for op in ops:
        parts = [part.replace("~1", "/").replace("~0", "~") for part in op["path"].split("/")[1:]]
        parent = document
        for part in parts[:-1]:
            parent = parent[int(part)] if isinstance(parent, list) else parent[part]
        last = parts[-1]
        if isinstance(parent, list):
            at = len(parent) if last == "-" else int(last)
            if at > len(parent) or (op["op"] != "add" and at >= len(parent)):
                raise KeyError(op["path"])
            if op["op"] == "add":
                parent.insert(at, op["value"])
            elif op["op"] == "replace":
                parent[at] = op["value"]
            elif op["op"] == "remove":
                del parent[at]
        elif op["op"] == "add":
            parent[last] = op["value"]
        elif op["op"] == "replace":
            parent[last]  # must be there
            parent[last] = op["value"]
        elif op["op"] == "remove":
            del parent[last]
        elif op["op"] == "test":
            if parent[last] != op["value"]:
                raise Conflict("test failed")
    return document


class Conflict(Exception):
    pass


class Refused(Exception):
    def __init__(self, code, reason, message):
        self.code, self.reason, self.message = code, reason, message


def selected(selector, labels):
    for key, value in ((selector or {}).get("matchLabels") or {}).items():
        if labels.get(key) != value:
            return False
    for expression in (selector or {}).get("matchExpressions") or []:
        key, operator, values = expression["key"], expression["operator"], expression.get("values") or []
        holds = {"In": key in labels and labels[key] in values, "NotIn": key not in labels or labels[key] not in values,
                 "Exists": key in labels, "DoesNotExist": key not in labels}[operator]
        if not holds:
            return False
    return True


def base64url(octets):
    return base64.urlsafe_b64encode(octets).rstrip(b"=")


class Signer:
    """The key of service accounts: P-256, as the server names it in its key set."""

    def __init__(self):
        made = subprocess.run(["openssl", "ecparam", "-name", "prime256v1", "-genkey", "-noout"], capture_output=True, check=True)
        self.file = tempfile.NamedTemporaryFile(suffix=".pem")
        self.file.write(made.stdout)
        self.file.flush()
        public = subprocess.run(["openssl", "ec", "-in", self.file.name, "-pubout", "-outform", "DER"], capture_output=True, check=True).stdout
        self.point = public[-64:]
        self.id = base64url(hashlib.sha256(public).digest()).decode()

    def key_set(self):
        x, y = (base64url(half).decode() for half in (self.point[:32], self.point[32:]))
        return {"keys": [{"use": "sig", "kty": "EC", "kid": self.id, "crv": "P-256", "alg": "ES256", "x": x, "y": y}]}

    def sign(self, claims):
        # No `typ`, as Kubernetes leaves it out.
        parts = [base64url(json.dumps(part).encode()) for part in ({"alg": "ES256", "kid": self.id}, claims)]
        text = b".".join(parts)
        der = subprocess.run(["openssl", "dgst", "-sha256", "-sign", self.file.name], input=text, capture_output=True, check=True).stdout
        # ECDSA-Sig-Value (RFC 3279 §2.2.3) as two numbers of 32 octets (RFC 7518 §3.4).
        length = der[3]
        numbers = der[4:4 + length], der[6 + length:]
        return (text + b"." + base64url(b"".join(n.lstrip(b"\0").rjust(32, b"\0") for n in numbers))).decode()


class Store:
    def __init__(self):
        self.signer = Signer()
        self.denied = set()  # (verb, resource) that whoever asks may not
        self.fast = 0  # seconds that the server's clock is ahead
        self.lock = threading.Condition()
        self.objects = {}  # (plural, namespace, name) -> object
        self.history = []  # (version, type, plural, object)
        self.version = 100
        self.oldest = 0  # watches from before this version are told 410
        self.conflicts = 0
        self.reviews = []  # seconds that each admission took
        self.names = itertools.count(1)
        self.asked = set()  # (verb, resource, name) that the webhook asked for

    def put(self, kind, plural, namespace, object):
        with self.lock:
            self.version += 1
            metadata = object.setdefault("metadata", {})
            key = (plural, namespace, metadata["name"])
            metadata["resourceVersion"] = str(self.version)
            metadata.setdefault("uid", f"00000000-0000-0000-0000-{self.version:012d}")
            if namespace:
                metadata["namespace"] = namespace
            object.setdefault("kind", KINDS[plural])
            self.objects[key] = object
            self.history.append((self.version, kind, plural, copy.deepcopy(object)))
            self.lock.notify_all()
            return copy.deepcopy(object)

    def create(self, plural, namespace, object):
        metadata = object.setdefault("metadata", {})
        if "name" not in metadata:
            metadata["name"] = metadata["generateName"] + format(next(self.names), "05x")
        with self.lock:
            if (plural, namespace, metadata["name"]) in self.objects:
                self.conflicts += 1
                raise Refused(409, "AlreadyExists", f"{plural} {metadata['name']} already exists")
            return self.put("ADDED", plural, namespace, object)

    def replace(self, plural, namespace, name, object):
        with self.lock:
            there = self.objects.get((plural, namespace, name))
            if there is None:
                raise Refused(404, "NotFound", f"{plural} {name} not found")
            if object["metadata"].get("resourceVersion") not in (None, there["metadata"]["resourceVersion"]):
                self.conflicts += 1
                raise Refused(409, "Conflict", "the object has been modified")
            return self.put("MODIFIED", plural, namespace, object)

    def delete(self, plural, namespace, name):
        with self.lock:
            object = self.objects.pop((plural, namespace, name))
            self.version += 1
            self.history.append((self.version, "DELETED", plural, object))
            self.lock.notify_all()

    def forget_history(self):
        """As etcd's compaction does: whoever watches from before now has to begin anew."""
        with self.lock:
            self.oldest = self.version + 1
            self.history.append((self.version, "EXPIRED", None, None))
            self.lock.notify_all()

    def list(self, plural, namespace=None):
        with self.lock:
            return [copy.deepcopy(object) for (p, n, _), object in sorted(self.objects.items(), key=lambda i: str(i[0]))
                    if p == plural and (namespace is None or n == namespace)]

    def token(self, namespace, account, request):
        """TokenRequest: a token of the account, bound to a pod of its where the request names one."""
        if ("serviceaccounts", namespace, account) not in self.objects:
            raise Refused(404, "NotFound", f"serviceaccounts {account} not found")
        spec, now = request["spec"], int(time.time())
        claims = {"iss": ISSUER, "sub": f"system:serviceaccount:{namespace}:{account}", "aud": spec.get("audiences") or [ISSUER],
                  "iat": now, "nbf": now, "exp": now + spec.get("expirationSeconds", 3600),
                  "kubernetes.io": {"namespace": namespace, "serviceaccount": {"name": account}}}
        bound = spec.get("boundObjectRef")
        if bound:
            pod = self.objects.get(("pods", namespace, bound["name"]))
            if pod is None or pod["metadata"]["uid"] != bound["uid"] or pod["spec"].get("serviceAccountName") != account:
                raise Refused(409, "Conflict", f"{bound} is no pod of the account")
            claims["kubernetes.io"]["pod"] = {"name": bound["name"], "uid": bound["uid"]}
        return {**request, "status": {"token": self.signer.sign(claims)}}

    def allows(self, spec):
        """What the stored roles grant to an account of ours; whoever asks for itself may do all but what is `denied`."""
        asked = spec["resourceAttributes"]
        if "user" not in spec:
            return (asked["verb"], asked["resource"]) not in self.denied
        *_, namespace, account = spec["user"].split(":")
        for plural, within in (("clusterrolebindings", None), ("rolebindings", asked.get("namespace"))):
            for binding in self.list(plural):
                subjects = [(s.get("namespace"), s["name"]) for s in binding["subjects"] if s["kind"] == "ServiceAccount"]
                if (namespace, account) in subjects and (within is None or binding["metadata"]["namespace"] == within) \
                        and self.grants(binding["roleRef"], within, asked):
                    return True
        return False

    def grants(self, reference, namespace, asked):
        plural = "clusterroles" if reference["kind"] == "ClusterRole" else "roles"
        role = self.objects.get((plural, "" if plural == "clusterroles" else namespace, reference["name"])) or {"rules": []}
        return any(asked["group"] in rule["apiGroups"] and asked["resource"] in rule["resources"] and asked["verb"] in rule["verbs"]
                   and ("resourceNames" not in rule or asked.get("name") in rule["resourceNames"]) for rule in role["rules"])

    # Admission

    def admit(self, namespace, pod, dry_run):
        """The pod after all webhooks; those that want it are asked again when a later one has changed something."""
        hooks = [(hook, configuration) for configuration in self.list("mutatingwebhookconfigurations")
                 for hook in configuration["webhooks"]]
        labels = (self.objects.get(("namespaces", "", namespace)) or {}).get("metadata", {}).get("labels") or {}
        before, asked = None, []
        for hook, _ in hooks:
            if self.wants(hook, labels, pod):
                before, pod = pod, self.ask(hook, namespace, pod, dry_run)
                asked.append((hook, copy.deepcopy(pod)))
        for hook, after in asked:
            if hook.get("reinvocationPolicy") == "IfNeeded" and after != pod and self.wants(hook, labels, pod):
                pod = self.ask(hook, namespace, pod, dry_run)
        return pod

    @staticmethod
    def wants(hook, namespace_labels, pod):
        return selected(hook.get("namespaceSelector"), namespace_labels) and selected(
            hook.get("objectSelector"), pod["metadata"].get("labels") or {})

    def ask(self, hook, namespace, pod, dry_run):
        uid = f"review-{next(self.names)}"
        review = {"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "request": {
            "uid": uid, "kind": {"group": "", "version": "v1", "kind": "Pod"},
            "resource": {"group": "", "version": "v1", "resource": "pods"}, "operation": "CREATE",
            "namespace": namespace, "name": pod["metadata"].get("name", ""), "object": pod, "oldObject": None,
            "dryRun": dry_run, "userInfo": {"username": "tester"}, "options": {"kind": "CreateOptions"}}}
        begun = time.perf_counter()
        try:
            answer = self.post(hook, json.dumps(review))
        except (OSError, http.client.HTTPException, ValueError) as error:
            raise Refused(500, "InternalError", f"failed calling webhook {hook['name']}: {error!r}") from error
        self.reviews.append(time.perf_counter() - begun)
        response = answer["response"]
        assert answer["apiVersion"] == "admission.k8s.io/v1" and response["uid"] == uid, answer
        if not response["allowed"]:
            status = response["status"]
            raise Refused(status["code"], status["reason"], f"admission webhook denied the request: {status['message']}")
        if "patch" in response:
            assert response["patchType"] == "JSONPatch"
            pod = patched(pod, json.loads(base64.b64decode(response["patch"])))
        return pod

    connections = threading.local()

    def post(self, hook, body):
        config = hook["clientConfig"]
        url = urllib.parse.urlsplit(config["url"])
        key = (config["url"], config.get("caBundle"))
        kept = getattr(self.connections, "kept", None)
        for again in (True, False):
            if kept is None or kept[0] != key:
                context = ssl.create_default_context(cadata=base64.b64decode(config["caBundle"]).decode())
                kept = (key, http.client.HTTPSConnection(url.hostname, url.port, context=context, timeout=10))
                self.connections.kept = kept
            try:
                kept[1].request("POST", url.path + "?timeout=5s", body, {"Content-Type": "application/json"})
                answer = kept[1].getresponse()
                text = answer.read()
                if answer.status != 200:
                    raise ValueError(f"{answer.status} {text[:200]!r}")
                return json.loads(text)
            except (OSError, http.client.HTTPException):
                kept[1].close()
                kept = self.connections.kept = None
                if not again:
                    raise


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    store: Store

    def log_message(self, *_):
        pass

    def date_time_string(self, timestamp=None):
        return super().date_time_string((timestamp or time.time()) + self.store.fast)

    def parts(self):
        """plural, namespace, name, query; notes what was asked, except by the tests themselves"""
        parts = self.told()
        if "Python" not in self.headers.get("User-Agent", ""):
            plural, _, name, query = parts
            verb = {"POST": "create", "PUT": "update", "PATCH": "patch", "DELETE": "delete", "GET": "get"}[self.command]
            if verb == "get" and not name:
                verb = "watch" if query.get("watch") else "list"
            self.store.asked.add((verb, plural, name if plural in ("secrets", "mutatingwebhookconfigurations") and name else None))
        return parts

    def told(self):
        url = urllib.parse.urlsplit(self.path)
        query = dict(urllib.parse.parse_qsl(url.query))
        path = url.path.strip("/").split("/")
        path = path[2:] if path[0] == "api" else path[3:]
        if len(path) >= 3 and path[0] == "namespaces":
            return path[2], path[1], path[3] if len(path) > 3 else None, query
        return path[0], "" if path[0] in CLUSTERED else None, path[1] if len(path) > 1 else None, query

    def answer(self, code, body):
        text = json.dumps(body).encode()
        self.send_response(code)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    def refuse(self, refused):
        self.answer(refused.code, {"kind": "Status", "apiVersion": "v1", "status": "Failure", "code": refused.code,
                                   "reason": refused.reason, "message": refused.message})

    def body(self):
        return json.loads(self.rfile.read(int(self.headers.get("Content-Length") or 0)) or "null")

    def do_GET(self):
        if self.path == "/version":
            return self.answer(200, {"major": "1", "minor": self.server.minor})
        if self.path == "/openid/v1/jwks":
            return self.answer(200, self.store.signer.key_set())
        plural, namespace, name, query = self.parts()
        if name:
            object = self.store.objects.get((plural, namespace, name))
            return self.answer(200, object) if object else self.refuse(Refused(404, "NotFound", f"{plural} {name} not found"))
        if query.get("watch"):
            return self.watch(plural, query)
        items = self.store.list(plural, namespace or None)
        if "labelSelector" in query:
            key, value = query["labelSelector"].split("!=")
            items = [item for item in items if (item["metadata"].get("labels") or {}).get(key) != value]
        start, limit = int(query.get("continue") or 0), int(query.get("limit") or 10**9)
        metadata = {"resourceVersion": str(self.store.version)}
        if start + limit < len(items):
            metadata["continue"] = str(start + limit)
        items, kind = items[start:start + limit], KINDS[plural] + "List"
        if "PartialObjectMetadata" in self.headers.get("Accept", ""):
            items = [{"kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1", "metadata": i["metadata"]} for i in items]
            return self.answer(200, {"kind": "PartialObjectMetadataList", "apiVersion": "meta.k8s.io/v1", "metadata": metadata, "items": items})
        self.answer(200, {"kind": kind, "apiVersion": "v1", "metadata": metadata, "items": items})

    def watch(self, plural, query):
        since, metadata_only = int(query.get("resourceVersion") or 0), "PartialObjectMetadata" in self.headers.get("Accept", "")
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()

        def send(kind, object):
            text = (json.dumps({"type": kind, "object": object}) + "\n").encode()
            self.wfile.write(f"{len(text):x}\r\n".encode() + text + b"\r\n")
            self.wfile.flush()

        until, at = time.monotonic() + int(query.get("timeoutSeconds") or 290), 0
        kind = "PartialObjectMetadata" if metadata_only else KINDS[plural]
        try:
            while time.monotonic() < until:
                with self.store.lock:
                    if since + 1 < self.store.oldest:
                        send("ERROR", {"kind": "Status", "apiVersion": "v1", "status": "Failure", "code": 410,
                                       "reason": "Expired", "message": "too old resource version"})
                        break
                    news = [entry for entry in self.store.history[at:] if entry[0] > since and entry[2] == plural]
                    at, seen = len(self.store.history), self.store.version
                    if not news:
                        self.store.lock.wait(0.5)
                for version, change, _, object in news:
                    since = version
                    if metadata_only:
                        object = {"kind": kind, "apiVersion": "meta.k8s.io/v1", "metadata": object["metadata"]}
                    send(change, object)
                if not news and query.get("allowWatchBookmarks"):
                    since = seen
                    send("BOOKMARK", {"kind": kind, "apiVersion": "v1", "metadata": {"resourceVersion": str(since)}})
            self.wfile.write(b"0\r\n\r\n")
        except OSError:
            pass

    def do_POST(self):
        plural, namespace, name, query = self.parts()
        try:
            object = self.body()
            if plural in ("subjectaccessreviews", "selfsubjectaccessreviews"):
                return self.answer(201, {**object, "status": {"allowed": self.store.allows(object["spec"])}})
            if plural == "serviceaccounts" and name:
                return self.answer(201, self.store.token(namespace, name, object))
            if plural == "pods":
                object = self.store.admit(namespace, object, query.get("dryRun") == "All")
                if query.get("dryRun") == "All":
                    return self.answer(201, object)
            self.answer(201, self.store.create(plural, namespace, object))
        except Refused as refused:
            self.refuse(refused)

    def do_PUT(self):
        plural, namespace, name, _ = self.parts()
        try:
            self.answer(200, self.store.replace(plural, namespace, name, self.body()))
        except Refused as refused:
            self.refuse(refused)

    def do_PATCH(self):
        plural, namespace, name, _ = self.parts()
        try:
            with self.store.lock:
                object = patched(self.store.objects[(plural, namespace, name)], self.body())
                self.answer(200, self.store.put("MODIFIED", plural, namespace, object))
        except Conflict as conflict:
            self.refuse(Refused(422, "Invalid", str(conflict)))
        except KeyError:
            self.refuse(Refused(404, "NotFound", f"{plural} {name} not found"))

    def do_DELETE(self):
        plural, namespace, name, _ = self.parts()
        self.store.delete(plural, namespace, name)
        self.answer(200, {"kind": "Status", "apiVersion": "v1", "status": "Success"})


class ApiServer:
    """A server on a port of its own; over TLS where there is a certificate: its chain, its key, and its authority."""

    def __init__(self, minor="33", host="127.0.0.1", certificate=None):
        self.store = Store()
        handler = type("Bound", (Handler,), {"store": self.store})
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        self.http = type("Server", (ThreadingHTTPServer,), {"address_family": family, "request_queue_size": 256})((host, 0), handler)
        self.http.daemon_threads = True
        self.http.minor = minor
        self.ca = None
        if certificate:
            chain, key, self.ca = certificate
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(chain, key)
            context.set_alpn_protocols(["http/1.1"])
            self.http.socket = context.wrap_socket(self.http.socket, server_side=True, do_handshake_on_connect=False)
        name = f"[{host}]" if ":" in host else host
        self.url = f"http{'s' if certificate else ''}://{name}:{self.http.server_address[1]}"
        threading.Thread(target=self.http.serve_forever, daemon=True).start()
