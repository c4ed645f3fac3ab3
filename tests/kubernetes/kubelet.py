"""Pods run as a node runs them, without an engine: each in a network namespace of its own behind one bridge, each container
a process with the mounts, user, capabilities and environment that its spec says, begun and ended in Kubernetes' order.

Images whose name begins with `funicular` are the layout that our Dockerfile leaves: nothing but the program. Any other
image is this machine's own files. What a container runtime adds (proc, dev, resolv.conf) is there, and no more.

Everything here happens in the network and mount namespaces of whoever runs it: see `enclosed`. Not covered: seccomp and
AppArmor profiles, process namespaces, and limits of memory and processor time.
"""

import base64, ctypes, itertools, os, pathlib, shutil, signal, subprocess, sys, tempfile, threading, time
import urllib.request

LIBC = ctypes.CDLL(None, use_errno=True)
CLONE_NEWNS, MS_RDONLY, MS_REMOUNT, MS_BIND, MS_REC, MS_PRIVATE = 0x20000, 1, 32, 4096, 16384, 1 << 18
PR_CAPBSET_DROP, PR_SET_NO_NEW_PRIVS = 24, 38
# By number (capabilities(7)); the ones that a container runtime grants unless told otherwise.
CAPABILITIES = ["CHOWN", "DAC_OVERRIDE", "DAC_READ_SEARCH", "FOWNER", "FSETID", "KILL", "SETGID", "SETUID", "SETPCAP",
                "LINUX_IMMUTABLE", "NET_BIND_SERVICE", "NET_BROADCAST", "NET_ADMIN", "NET_RAW", "IPC_LOCK", "IPC_OWNER",
                "SYS_MODULE", "SYS_RAWIO", "SYS_CHROOT", "SYS_PTRACE", "SYS_PACCT", "SYS_ADMIN", "SYS_BOOT", "SYS_NICE",
                "SYS_RESOURCE", "SYS_TIME", "SYS_TTY_CONFIG", "MKNOD", "LEASE", "AUDIT_WRITE", "AUDIT_CONTROL", "SETFCAP"]
USUAL = {"CHOWN", "DAC_OVERRIDE", "FOWNER", "FSETID", "KILL", "SETGID", "SETUID", "SETPCAP", "NET_BIND_SERVICE",
         "NET_RAW", "SYS_CHROOT", "MKNOD", "AUDIT_WRITE", "SETFCAP"}
LAST_CAPABILITY = int(pathlib.Path("/proc/sys/kernel/cap_last_cap").read_text())


def enclosed():
    """Starts this program anew in network and mount namespaces of its own, which end with it."""
    inside, _, count = max((tuple(map(int, line.split())) for line in open("/proc/self/uid_map")), key=lambda entry: entry[2])
    if inside + count <= 7246:
        print("!! cannot run here: the sidecar's user is none of those of this user namespace; run this as root", flush=True)
        raise SystemExit(0)
    if os.environ.get("FUNICULAR_ENCLOSED"):
        subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
        return
    command = ["unshare", "--net", "--mount", "--propagation", "private", "--kill-child", "--fork", sys.executable, *sys.argv]
    raise SystemExit(subprocess.run(command, env={**os.environ, "FUNICULAR_ENCLOSED": "1"}).returncode)


def until(what, holds, seconds=30):
    deadline = time.monotonic() + seconds
    while not (value := holds()):
        assert time.monotonic() < deadline, f"not within {seconds} s: {what() if callable(what) else what}"
        time.sleep(0.05)
    return value


def ip(*words):
    done = subprocess.run(["ip", *words], capture_output=True, text=True)
    assert done.returncode == 0, (words, done.stderr)
    return done.stdout


def mount(source, target, flags, kind=None):
    if LIBC.mount(str(source).encode(), str(target).encode(), kind and kind.encode(), flags, None):
        raise OSError(ctypes.get_errno(), f"mount {source} {target} {flags}")


def layout(program, folder):
    """What the Dockerfile's last stage holds: the program, and for one that is not static, its libraries."""
    folder = pathlib.Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    shutil.copy(program, folder / "funicular")
    told = subprocess.run(["ldd", program], capture_output=True, text=True)
    for word in told.stdout.split() if told.returncode == 0 else []:
        if word.startswith("/") and os.path.exists(word):
            (folder / word[1:]).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(word, folder / word[1:])
    return folder


class Node:
    """A node's network, and what its kubelet knows. Pods have IPv6 addresses below `prefix`."""

    prefix = "2001:db8:77::"

    def __init__(self, image, name="node-1"):
        self.image, self.name = pathlib.Path(image), name
        self.address = self.prefix + "1"
        self.scratch = pathlib.Path(tempfile.mkdtemp(prefix="kubelet-"))
        self.pods = {}
        # Each once: neighbours remember for a while whose an address was.
        self.addresses = itertools.count(0x10)
        # Who answers names that are not Peak's, as a cluster's DNS does; None: nobody.
        self.name_server = self.address
        # Of its own: else it is the least of its ports', changes with each pod, and pods send to the old one for half a minute.
        ip("link", "add", "br0", "address", "02:00:00:00:ff:01", "type", "bridge")
        ip("addr", "add", f"{self.address}/64", "dev", "br0", "nodad")
        ip("link", "set", "br0", "up")
        pathlib.Path("/proc/sys/net/ipv6/conf/all/forwarding").write_text("1")
        pathlib.Path("/run/netns").mkdir(exist_ok=True)
        mount("tmpfs", "/run/netns", 0, "tmpfs")

    def run(self, pod, api=None, at=None):
        """Starts the pod, as far as Kubernetes counts it started; `at` is the last part of its address."""
        started = Pod(self, pod, api, at or format(next(self.addresses), "x"))
        self.pods[started.name] = started
        started.start()
        return started

    def stop(self):
        for pod in list(self.pods.values()):
            pod.stop(seconds=3)
        ip("link", "del", "br0")
        shutil.rmtree(self.scratch, ignore_errors=True)


def of_stateful_set(stateful_set, ordinal):
    """The pod that its controller makes: by its name it has its disks and is found."""
    metadata, template = stateful_set["metadata"], stateful_set["spec"]["template"]
    name = f"{metadata['name']}-{ordinal}"
    claims = [{"name": claim["metadata"]["name"], "persistentVolumeClaim": {"claimName": f"{claim['metadata']['name']}-{name}"}}
              for claim in stateful_set["spec"].get("volumeClaimTemplates") or []]
    spec = {**template["spec"], "volumes": [*(template["spec"].get("volumes") or []), *claims]}
    return {"apiVersion": "v1", "kind": "Pod", "spec": spec,
            "metadata": {**template["metadata"], "name": name, "namespace": metadata["namespace"], "uid": f"uid-of-{name}"}}


class Pod:
    def __init__(self, node, pod, api, at):
        self.node, self.pod, self.api, self.spec = node, pod, api, pod["spec"]
        self.name, self.namespace = pod["metadata"]["name"], pod["metadata"]["namespace"]
        self.address = node.prefix + at
        self.folder = node.scratch / f"{self.namespace}-{self.name}-{at}"
        shutil.rmtree(self.folder, ignore_errors=True)
        self.folder.mkdir()
        self.sidecars, self.running, self.phases = [], [], []
        # A pod of the node's own network has none of its own.
        self.netns = None if self.spec.get("hostNetwork") else f"{self.name}-{at}"
        if self.netns:
            self.wire(at)
        else:
            self.address = node.address
        (self.folder / "resolv.conf").write_text(f"nameserver {node.name_server}\noptions timeout:2 attempts:2\n")
        self.volumes = {volume["name"]: self.volume(volume) for volume in self.spec.get("volumes") or []}

    def wire(self, at):
        """A network of its own, as container networks give it."""
        self.link = f"p{at}"
        ip("netns", "add", self.netns)
        # As container networks do; else the pod's first seconds go by with duplicate address detection.
        ip("-n", self.netns, "link", "set", "lo", "up")
        # A pod that comes back at its address is the same neighbour to all others.
        ip("link", "add", f"p{at}", "type", "veth", "peer", "name", "eth0", "address", f"02:00:00:00:00:{int(at, 16):02x}", "netns", self.netns)
        ip("link", "set", f"p{at}", "master", "br0", "up")
        # All its neighbour is the node, which tells it of no shorter way.
        ip("netns", "exec", self.netns, "sysctl", "-qw", "net.ipv6.conf.eth0.accept_redirects=0")
        ip("-n", self.netns, "addr", "add", f"{self.address}/128", "dev", "eth0", "nodad")
        ip("-n", self.netns, "link", "set", "eth0", "up")
        ip("-n", self.netns, "route", "add", f"{self.node.address}/128", "dev", "eth0")
        ip("-n", self.netns, "route", "add", "default", "via", self.node.address)

    # Volumes

    def written(self, name, files, mode=0o644):
        """Files of a volume as the kubelet writes them: behind a link that is exchanged as a whole."""
        folder = self.folder / name
        data = folder / f"..{time.monotonic_ns()}"
        data.mkdir(parents=True)
        for file, content in files.items():
            (data / file).parent.mkdir(parents=True, exist_ok=True)
            (data / file).write_bytes(content)
            (data / file).chmod(mode)
        link = folder / "..new"
        link.symlink_to(data.name)
        link.replace(folder / "..data")
        for file in files:
            if not (folder / file).is_symlink():
                (folder / file).symlink_to(f"..data/{file}")
        return folder

    def object(self, kind, name, optional=False):
        status, object = self.api.ask("GET", f"/api/v1/namespaces/{self.namespace}/{kind}/{name}")
        if status == 404 and optional:
            return None
        assert status == 200, (kind, name, status, object)
        return object

    def files_of(self, source):
        """The files of one source of a volume."""
        (kind, told), = ((key, value) for key, value in source.items() if key not in ("name",))
        if kind == "configMap":
            object = self.object("configmaps", told["name"], told.get("optional"))
            files = {key: text.encode() for key, text in ((object or {}).get("data") or {}).items()}
        elif kind == "secret":
            object = self.object("secrets", told.get("secretName") or told["name"], told.get("optional"))
            files = {key: base64.b64decode(text) for key, text in ((object or {}).get("data") or {}).items()}
        elif kind == "serviceAccountToken":
            return {told["path"]: self.token(told.get("audience"), told.get("expirationSeconds", 3600)).encode()}
        else:
            raise AssertionError(f"no volume of kind {kind} here")
        if "items" in told and files:
            files = {item["path"]: files[item["key"]] for item in told["items"] if item["key"] in files}
        return files

    def token(self, audience, seconds):
        """A token of this pod's account, bound to the pod: TokenRequest, as the kubelet asks."""
        metadata = self.pod["metadata"]
        spec = {"expirationSeconds": seconds, "boundObjectRef": {"kind": "Pod", "apiVersion": "v1", "name": self.name, "uid": metadata["uid"]}}
        if audience:
            spec["audiences"] = [audience]
        account = self.spec.get("serviceAccountName", "default")
        path = f"/api/v1/namespaces/{self.namespace}/serviceaccounts/{account}/token"
        made = self.api.must("POST", path, {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": spec})
        return made["status"]["token"]

    def volume(self, volume):
        name = volume["name"]
        if "emptyDir" in volume or "persistentVolumeClaim" in volume:
            # A claim's disk outlives the pod.
            claim = volume.get("persistentVolumeClaim")
            folder = self.node.scratch / "disks" / claim["claimName"] if claim else self.folder / name
            folder.mkdir(parents=True, exist_ok=True)
            folder.chmod(0o777)
            return folder
        if "hostPath" in volume:
            path = pathlib.Path(volume["hostPath"]["path"])
            if volume["hostPath"].get("type") == "DirectoryOrCreate":
                path.mkdir(parents=True, exist_ok=True)
            assert path.exists(), path
            return path
        if "projected" in volume:
            files = {}
            for source in volume["projected"]["sources"]:
                files.update(self.files_of(source))
            return self.written(name, files)
        return self.written(name, self.files_of(volume))

    def renew(self, name):
        """Brings a volume up to date, as the kubelet does every minute or so."""
        volume, = (v for v in self.spec["volumes"] if v["name"] == name)
        shown = self.volume(volume)
        assert shown == self.volumes[name]

    # Containers

    def start(self):
        for container in self.spec.get("initContainers") or []:
            if container.get("restartPolicy") == "Always":
                running = Container(self, container)
                self.sidecars.append(running)
                running.started()
            else:
                done = Container(self, container)
                code = done.process.wait(60)
                assert code == 0, (self.name, container["name"], code, done.said()[-2000:])
            self.phases.append(container["name"])
        for container in self.spec["containers"]:
            running = Container(self, container)
            self.running.append(running)
            running.started()
            self.phases.append(container["name"])

    def container(self, name):
        found, = (c for c in self.sidecars + self.running if c.name == name)
        return found

    def ready(self):
        return all(container.probed("readinessProbe") for container in self.sidecars + self.running)

    def finish(self, seconds=30):
        """Waits until the pod has ended by itself; the exit codes of its containers. Sidecars end when they are alone."""
        codes = {container.name: container.process.wait(seconds) for container in self.running}
        self.stop(seconds)
        return codes

    def stop(self, seconds=None):
        """As a pod is deleted: everybody's hooks at once, each container's SIGTERM after its own, those of sidecars when the
        others have ended, in reverse order; SIGKILL after the grace period. Gives whether everybody ended in time."""
        self.node.pods.pop(self.name, None)
        deadline = time.monotonic() + (seconds or self.spec.get("terminationGracePeriodSeconds", 30))
        in_time = True
        hooks = {container: threading.Thread(target=container.last_hook) for container in self.running + self.sidecars}
        for hook in hooks.values():
            hook.start()
        for group in [self.running, *([sidecar] for sidecar in reversed(self.sidecars))]:
            told = [threading.Thread(target=container.terminate, args=[hooks[container]]) for container in group]
            for thread in told:
                thread.start()
            for thread in told:
                thread.join()
            for container in group:
                in_time &= container.ended(deadline)
        if self.netns:
            ip("link", "del", self.link)
            ip("netns", "del", self.netns)
        return in_time

    def kill(self):
        """As a node that fails: nobody is told."""
        for container in self.running + self.sidecars:
            os.killpg(container.process.pid, signal.SIGKILL)
        self.stop()

    def metric(self, name, port=15020, **labels):
        total = 0.0
        with urllib.request.urlopen(f"http://[{self.address}]:{port}/metrics", timeout=20) as answer:
            for line in answer.read().decode().splitlines():
                if line.startswith((name + "{", name + " ")) and all(f'{key}="{value}"' in line for key, value in labels.items()):
                    total += float(line.rsplit(" ", 1)[1])
        return total


class Container:
    def __init__(self, pod, container):
        self.pod, self.container, self.name = pod, container, container["name"]
        self.log = pod.folder / f"{self.name}.log"
        self.process = self.launch(self.words())
        self.watch = {}

    def words(self):
        command = self.container.get("command") or (["/funicular"] if self.ours() else [])
        return [self.expanded(word) for word in [*command, *(self.container.get("args") or [])]]

    def ours(self):
        return self.container["image"].rsplit("/", 1)[-1].startswith("funicular")

    def environment(self):
        known = {"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "HOSTNAME": self.pod.name}
        for variable in self.container.get("env") or []:
            if "value" in variable:
                known[variable["name"]] = self.expanded(variable["value"], known)
            else:
                known[variable["name"]] = self.field(variable["valueFrom"]["fieldRef"]["fieldPath"])
        return known

    def expanded(self, text, known=None):
        known = self.environment() if known is None and "$(" in text else known or {}
        for name, value in known.items():
            text = text.replace(f"$({name})", value)
        return text

    def field(self, path):
        pod = self.pod
        return {"metadata.name": pod.name, "metadata.namespace": pod.namespace, "status.podIP": pod.address,
                "status.hostIP": pod.node.address, "spec.nodeName": pod.node.name, "metadata.uid": pod.pod["metadata"].get("uid", ""),
                "spec.serviceAccountName": pod.spec.get("serviceAccountName", "default")}[path]

    def launch(self, words):
        output = open(self.log, "ab")
        # Out here, where it may fail with an answer; between fork and exec nothing is to be imported or allocated much.
        root, plan = self.root(), self.plan()
        environment = self.environment()
        security = self.security()
        return subprocess.Popen(words, executable=words[0], env=environment, stdin=subprocess.DEVNULL, stdout=output, stderr=output,
                                start_new_session=True, preexec_fn=lambda: self.enter(root, plan, security))

    def security(self):
        """The container's context, where it says nothing the pod's."""
        return {**(self.pod.spec.get("securityContext") or {}), **(self.container.get("securityContext") or {})}

    def root(self):
        """An empty root with the places of mounts, so that it can be read-only."""
        if not self.ours():
            return None
        root = self.pod.folder / f"{self.name}.root"
        for folder in ("proc", "dev", "etc", *(str(m["mountPath"]).lstrip("/") for m in self.container.get("volumeMounts") or [])):
            (root / folder).mkdir(parents=True, exist_ok=True)
        for file in ("dev/null", "etc/resolv.conf"):
            (root / file).touch()
        for entry in self.pod.node.image.iterdir():
            (root / entry.name).mkdir(exist_ok=True) if entry.is_dir() else (root / entry.name).touch()
        return root

    def plan(self):
        """What is mounted where: source, target, whether it may be written."""
        pod, plan = self.pod, []
        if self.ours():
            plan += [(entry, f"/{entry.name}", False) for entry in pod.node.image.iterdir()]
            plan += [("/proc", "/proc", True), ("/dev/null", "/dev/null", True)]
        plan.append((pod.folder / "resolv.conf", "/etc/resolv.conf", False))
        for mounted in self.container.get("volumeMounts") or []:
            source = pod.volumes[mounted["name"]]
            if "subPath" in mounted:
                source = source / mounted["subPath"]
            plan.append((source, mounted["mountPath"], not mounted.get("readOnly", False)))
        return plan

    def enter(self, root, plan, security):
        """Between fork and exec: into the pod."""
        netns = self.pod.netns
        if netns and LIBC.setns(os.open(f"/run/netns/{netns}", os.O_RDONLY), 0) or LIBC.unshare(CLONE_NEWNS):
            raise OSError(ctypes.get_errno(), "namespaces")
        mount("none", "/", MS_REC | MS_PRIVATE)
        top = str(root or "/")
        if root:
            mount(root, root, MS_BIND)
        for source, target, writable in plan:
            place = top.rstrip("/") + target
            if not root and not os.path.exists(place):
                continue
            mount(source, place, MS_BIND | (MS_REC if target == "/proc" else 0))
            if not writable:
                mount("none", place, MS_BIND | MS_REMOUNT | MS_RDONLY)
        if root:
            if security.get("readOnlyRootFilesystem"):
                mount("none", root, MS_BIND | MS_REMOUNT | MS_RDONLY)
            os.chroot(root)
        os.chdir("/")
        told = security.get("capabilities") or {}
        dropped, added = set(told.get("drop") or []), set(told.get("add") or [])
        kept = (set() if "ALL" in dropped else USUAL - dropped) | added
        for number in range(LAST_CAPABILITY + 1):
            name = CAPABILITIES[number] if number < len(CAPABILITIES) else None
            if name not in kept:
                LIBC.prctl(PR_CAPBSET_DROP, number, 0, 0, 0)
        user = security.get("runAsUser", 0)
        assert not (security.get("runAsNonRoot") and user == 0), "the kubelet refuses to start it"
        os.setgroups([security["fsGroup"]] if "fsGroup" in security else [])
        os.setgid(security.get("runAsGroup", 0))
        os.setuid(user)
        if security.get("allowPrivilegeEscalation") is False:
            LIBC.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)

    # Life

    def started(self):
        hook = (self.container.get("lifecycle") or {}).get("postStart")
        if hook:
            code = self.launch(hook["exec"]["command"]).wait(120)
            assert code == 0, (self.name, "postStart", code, self.said()[-2000:])
        probe = self.container.get("startupProbe")
        if probe:
            seconds = probe.get("periodSeconds", 10) * probe.get("failureThreshold", 3)
            until(lambda: f"{self.pod.name}/{self.name} started: {self.said()[-2000:]}",
                  lambda: self.alive() and self.probed("startupProbe"), min(seconds, 60))

    def alive(self):
        assert self.process.poll() is None, (self.pod.name, self.name, self.process.returncode, self.said()[-3000:])
        return True

    def probed(self, kind):
        """The kubelet's question, from the node."""
        probe = self.container.get(kind)
        if not probe:
            return True
        get = probe["httpGet"]
        port = get["port"]
        if isinstance(port, str):
            port, = (p["containerPort"] for p in self.container["ports"] if p["name"] == port)
        host = "127.0.0.1" if self.pod.spec.get("hostNetwork") else f"[{self.pod.address}]"
        try:
            url = f"http://{host}:{port}{get.get('path', '/')}"
            with urllib.request.urlopen(url, timeout=probe.get("timeoutSeconds", 1)) as answer:
                return 200 <= answer.status < 400
        except OSError:
            return False

    def last_hook(self):
        hook = (self.container.get("lifecycle") or {}).get("preStop")
        if hook and "exec" in hook and self.process.poll() is None:
            self.launch(hook["exec"]["command"]).wait(60)

    def terminate(self, hook):
        hook.join()
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)

    def ended(self, deadline):
        try:
            self.process.wait(max(deadline - time.monotonic(), 0.1))
            return True
        except subprocess.TimeoutExpired:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait(10)
            return False

    def said(self):
        return self.log.read_text(errors="replace")
