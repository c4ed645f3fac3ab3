//! Injection on small pods, and its laws on generated ones; a library of others applies the patches.

use proptest::prelude::*;
use serde_json::{Map, Value, json};

use super::*;

fn opted_in() -> Namespace {
    Namespace { labels: Map::from_iter([(LABEL.to_owned(), json!("true"))]), annotations: Map::new() }
}

fn patch(pod: &Value, namespace: &Namespace, settings: &Settings) -> Result<Vec<Op>, Refusal> {
    Ok(match inject(pod, namespace, settings)?.outcome {
        Outcome::Injected(ops) => ops,
        Outcome::Left(_) => Vec::new(),
    })
}

/// As an API server applies it.
fn patched(pod: &Value, ops: &[Op]) -> Value {
    let ops = Value::Array(ops.iter().map(Op::to_json).collect());
    let mut changed = pod.clone();
    json_patch::patch(&mut changed, &serde_json::from_value::<json_patch::Patch>(ops).unwrap()).unwrap();
    changed
}

fn injected(pod: &Value) -> Value {
    patched(pod, &patch(pod, &opted_in(), &Settings::default()).unwrap())
}

fn refused(pod: Value) -> &'static str {
    inject(&pod, &opted_in(), &Settings::default()).unwrap_err().reason()
}

fn pod() -> Value {
    json!({ "metadata": {}, "spec": { "containers": [{ "name": "web", "image": "web" }] } })
}

fn with(path: &str, value: Value) -> Value {
    let mut pod = pod();
    let (parent, key) = path.rsplit_once('/').unwrap();
    pod.pointer_mut(parent).unwrap()[key] = value;
    pod
}

fn names(list: &Value) -> Vec<&str> {
    list.as_array().unwrap().iter().map(|item| item["name"].as_str().unwrap()).collect()
}

#[test]
fn a_bare_pod_gets_both_containers_first_and_keeps_its_own() {
    let pod = injected(&with("/spec/initContainers", json!([{ "name": "migrate", "image": "m" }])));
    assert_eq!(names(&pod["spec"]["initContainers"]), [INIT, SIDECAR, "migrate"]);
    assert_eq!(names(&pod["spec"]["containers"]), ["web"]);
    assert_eq!(pod["spec"]["initContainers"][1]["restartPolicy"], "Always");
    assert_eq!(pod["metadata"]["labels"][INJECTED], "true");
    assert_eq!(pod["metadata"]["annotations"]["kubectl.kubernetes.io/default-container"], "web");
}

#[test]
fn without_native_sidecars_the_rules_come_last_and_the_sidecar_first() {
    let before = with("/spec/initContainers", json!([{ "name": "migrate", "image": "m" }]));
    let settings = Settings { native: false, ..Settings::default() };
    let pod = patched(&before, &patch(&before, &opted_in(), &settings).unwrap());
    assert_eq!(names(&pod["spec"]["initContainers"]), ["migrate", INIT]);
    assert_eq!(names(&pod["spec"]["containers"]), [SIDECAR, "web"]);
    let gate = &pod["spec"]["containers"][0]["lifecycle"]["postStart"]["exec"]["command"];
    assert_eq!(gate[2], "wait");
    assert_eq!(pod["metadata"]["annotations"]["kubectl.kubernetes.io/default-container"], "web");
}

#[test]
fn a_pod_that_leases_slices_is_given_its_node_s_agent_and_who_it_is() {
    let settings =
        Settings { leases: true, trust_domain: Some("cluster.example".parse().unwrap()), ..Settings::default() };
    let pod = patched(&pod(), &patch(&pod(), &opted_in(), &settings).unwrap());
    let sidecar = &pod["spec"]["initContainers"][1];
    let said = |name: &str| sidecar["env"].as_array().unwrap().iter().find(|set| set["name"] == name).cloned().unwrap();
    assert_eq!(
        said("FUNICULAR_IDENTITY_ID")["value"],
        "spiffe://cluster.example/ns/$(POD_NAMESPACE)/sa/$(POD_ACCOUNT)"
    );
    assert_eq!(said("FUNICULAR_LEASE_POD")["valueFrom"]["fieldRef"]["fieldPath"], "metadata.name");
    let agent = said("FUNICULAR_LEASE_AGENT")["value"].as_str().unwrap().to_owned();
    let volumes = pod["spec"]["volumes"].as_array().unwrap();
    let folder = volumes.iter().find(|volume| volume["name"] == "funicular-agent").unwrap();
    assert!(agent.starts_with(folder["hostPath"]["path"].as_str().unwrap()), "{agent}");
    let mounted = sidecar["volumeMounts"].as_array().unwrap();
    assert!(mounted.iter().any(|mount| mount["name"] == "funicular-agent" && mount["readOnly"] == true));
    let refused =
        patch(&with("/metadata/annotations", json!({ "config.funicular.dev/leases": "yes" })), &opted_in(), &settings);
    assert_eq!(refused.unwrap_err().reason(), "annotation-invalid");
}

#[test]
fn the_pod_s_word_wins_over_its_namespace_s() {
    let outcome = |pod: &Value, namespace: &Namespace| inject(pod, namespace, &Settings::default()).unwrap().outcome;
    let says = |word: &str| with("/metadata/labels", json!({ LABEL: word }));
    assert_eq!(outcome(&pod(), &Namespace::default()), Outcome::Left(Left::NotOptedIn));
    assert_eq!(outcome(&says("false"), &opted_in()), Outcome::Left(Left::OptedOut));
    assert!(matches!(outcome(&says("true"), &Namespace::default()), Outcome::Injected(_)));
    let annotated = with("/metadata/annotations", json!({ LABEL: "true" }));
    assert_eq!(inject(&annotated, &Namespace::default(), &Settings::default()).unwrap().warnings.len(), 1);
}

#[test]
fn a_pod_that_cannot_have_a_sidecar_is_refused_with_the_reason() {
    let container = |member: &str, value: Value| {
        with("/spec/containers", json!([{ "name": "web", "image": "web", member: value }]))
    };
    let wish = |key: &str, value: Value| with("/metadata/annotations", json!({ format!("{PREFIX}{key}"): value }));
    let cases = [
        (with("/spec/hostNetwork", json!(true)), "host-network"),
        (with("/spec/securityContext", json!({ "runAsUser": 7246 })), "same-user"),
        (container("securityContext", json!({ "runAsUser": 7246 })), "same-user"),
        (container("ports", json!([{ "containerPort": 15006 }])), "port-taken"),
        (with("/metadata/labels", json!({ LABEL: "yes" })), "label-invalid"),
        (with("/metadata/labels", json!({ LABEL: true })), "label-invalid"),
        (wish("log-levle", json!("debug")), "annotation-unknown"),
        (wish("log-level", json!("loud")), "annotation-invalid"),
        (wish("cpu-request", json!(1)), "annotation-invalid"),
        (with("/spec/os", json!({ "name": "windows" })), "windows"),
        (with("/spec/volumes", json!([{ "name": "funicular-config", "emptyDir": {} }])), "name-taken"),
        (with("/spec/containers", json!([])), "not-a-pod"),
        (with("/spec/containers", json!(["web"])), "not-a-pod"),
        (with("/metadata/annotations", json!({ STATUS: "{}" })), "status-malformed"),
        (with("/metadata/annotations", json!({ STATUS: 1 })), "status-malformed"),
    ];
    for (pod, reason) in cases {
        assert_eq!(refused(pod.clone()), reason, "{pod}");
    }
    let job = with("/spec/restartPolicy", json!("Never"));
    let classic = Settings { native: false, ..Settings::default() };
    assert_eq!(inject(&job, &opted_in(), &classic).unwrap_err().reason(), "job-needs-native-sidecar");
    assert!(inject(&job, &opted_in(), &Settings::default()).is_ok());
}

#[test]
fn a_user_beside_the_sidecar_s_own_is_nobody_s_fault() {
    for uid in [0, 7245, 7247] {
        let pod = with("/spec/securityContext", json!({ "runAsUser": uid }));
        assert!(inject(&pod, &opted_in(), &Settings::default()).is_ok(), "{uid}");
    }
}

#[test]
fn a_sidecar_in_the_manifest_is_left_alone() {
    let pod = with("/spec/initContainers", json!([{ "name": SIDECAR, "image": "mine" }]));
    let outcome = inject(&pod, &opted_in(), &Settings::default()).unwrap().outcome;
    assert_eq!(outcome, Outcome::Left(Left::ByHand));
}

#[test]
fn what_a_namespace_wishes_is_copied_onto_its_pods_and_the_pod_s_own_wish_wins() {
    let mut namespace = opted_in();
    namespace.annotations =
        json!({ "config.funicular.dev/log-level": "debug", "config.funicular.dev/cpu-request": "1", "other": "x" })
            .as_object()
            .unwrap()
            .clone();
    let before = with("/metadata/annotations", json!({ "config.funicular.dev/log-level": "warn" }));
    let ops = patch(&before, &namespace, &Settings::default()).unwrap();
    let pod = patched(&before, &ops);
    let annotations = &pod["metadata"]["annotations"];
    assert_eq!(annotations["config.funicular.dev/cpu-request"], "1");
    assert_eq!(annotations["config.funicular.dev/log-level"], "warn");
    assert!(annotations.get("other").is_none());
    let sidecar = &pod["spec"]["initContainers"][1];
    assert_eq!(sidecar["resources"]["requests"]["cpu"], "1");
    assert!(sidecar["env"].as_array().unwrap().contains(&json!({ "name": "FUNICULAR_LOG_LEVEL", "value": "warn" })));
    assert_eq!(inject(&pod, &namespace, &Settings::default()).unwrap().outcome, Outcome::Left(Left::Current));
}

#[test]
fn the_sidecar_drains_for_two_seconds_less_than_the_pod_has() {
    let drain = |grace: Value| {
        let pod = injected(&with("/spec/terminationGracePeriodSeconds", grace));
        pod["spec"]["initContainers"][1]["env"][0]["value"].as_str().unwrap().to_owned()
    };
    assert_eq!(drain(Value::Null), "28s");
    assert_eq!(drain(json!(600)), "598s");
    assert_eq!(drain(json!(3)), "1s");
    assert_eq!(drain(json!(0)), "1s");
}

#[test]
fn probes_of_every_kind_are_asked_of_the_sidecar() {
    let container = json!({
        "name": "web", "image": "web", "ports": [{ "name": "http", "containerPort": 8080 }],
        "livenessProbe": { "tcpSocket": { "port": 8080 }, "periodSeconds": 7 },
        "readinessProbe": {
            "httpGet": { "port": "http", "path": "/ok", "httpHeaders": [{ "name": "X", "value": "y" }] },
            "timeoutSeconds": 3
        },
        "startupProbe": { "grpc": { "port": 9090, "service": "s" } },
        "lifecycle": { "preStop": { "httpGet": { "port": 8080, "path": "/bye" } }, "postStart": { "exec": { "command": ["x"] } } }
    });
    let before = with("/spec/containers", json!([container]));
    let pod = injected(&before);
    let web = &pod["spec"]["containers"][0];
    let asked = |word: &str| json!({ "path": format!("/probe/web/{word}"), "port": 15020, "scheme": "HTTP" });
    assert_eq!(web["livenessProbe"], json!({ "httpGet": asked("liveness"), "periodSeconds": 7 }));
    assert_eq!(web["readinessProbe"], json!({ "httpGet": asked("readiness"), "timeoutSeconds": 3 }));
    assert_eq!(web["startupProbe"], json!({ "httpGet": asked("startup") }));
    assert_eq!(web["lifecycle"]["preStop"], json!({ "httpGet": asked("pre-stop") }));
    assert_eq!(web["lifecycle"]["postStart"], container["lifecycle"]["postStart"]);
    let env = pod["spec"]["initContainers"][1]["env"].as_array().unwrap();
    let probes = env.iter().find(|variable| variable["name"] == "FUNICULAR_PROBES").unwrap()["value"].as_str().unwrap();
    let probes: Value = serde_json::from_str(probes).unwrap();
    let ready = json!({ "kind": "http", "port": 8080, "path": "/ok", "headers": { "X": "y" }, "timeout": "3s" });
    assert_eq!(probes["web/readiness"], ready);
    assert_eq!(probes["web/liveness"], json!({ "kind": "tcp", "port": 8080, "timeout": "1s" }));
    assert_eq!(probes["web/startup"], json!({ "kind": "grpc", "port": 9090, "service": "s", "timeout": "1s" }));
    assert_eq!(patched(&pod, &remove(&pod).unwrap()), before);
}

#[test]
fn a_probe_that_does_not_come_by_the_sidecar_stays() {
    let probes = [
        json!({ "exec": { "command": ["true"] } }),
        json!({ "httpGet": { "port": 80, "host": "192.0.2.1" } }),
        json!({ "httpGet": { "port": "unknown" } }),
        json!({ "tcpSocket": { "port": 9100 } }),
    ];
    for probe in probes {
        let mut before = with("/spec/containers", json!([{ "name": "web", "livenessProbe": probe }]));
        before["metadata"]["annotations"] = json!({ "config.funicular.dev/skip-inbound-ports": "9000-9200" });
        assert_eq!(injected(&before)["spec"]["containers"], before["spec"]["containers"]);
    }
}

#[test]
fn what_other_webhooks_add_to_an_injected_pod_stays_through_a_second_pass() {
    let mut pod = injected(&pod());
    let sidecar = &mut pod["spec"]["initContainers"][1];
    sidecar["image"] = json!("mirror.example/funicular");
    sidecar["volumeMounts"].as_array_mut().unwrap().push(json!({ "name": "zone", "mountPath": "/etc/localtime" }));
    pod["spec"]["containers"].as_array_mut().unwrap().push(json!({ "name": "other", "image": "o" }));
    let second = inject(&pod, &opted_in(), &Settings::default()).unwrap();
    assert_eq!(second.outcome, Outcome::Left(Left::Current));
}

#[test]
fn a_probe_that_came_later_is_asked_of_the_sidecar_as_well() {
    let mut pod = injected(&pod());
    let other = json!({ "name": "other", "livenessProbe": { "httpGet": { "port": 81 } } });
    pod["spec"]["containers"].as_array_mut().unwrap().push(other);
    let again = injected(&pod);
    assert_eq!(again["spec"]["containers"][1]["livenessProbe"]["httpGet"]["port"], 15020);
    assert_eq!(patch(&again, &opted_in(), &Settings::default()).unwrap(), []);
    let mut bare = self::pod();
    bare["spec"]["containers"] = json!([
        { "name": "web", "image": "web" }, { "name": "other", "livenessProbe": { "httpGet": { "port": 81 } } }
    ]);
    assert_eq!(patched(&again, &remove(&again).unwrap()), bare);
}

#[test]
fn another_template_replaces_what_an_earlier_one_put_there() {
    let before = pod();
    let classic = Settings { native: false, identity_secret: Some("id".to_owned()), ..Settings::default() };
    let first = patched(&before, &patch(&before, &opted_in(), &classic).unwrap());
    let second = injected(&first);
    assert_eq!(names(&second["spec"]["containers"]), ["web"]);
    assert_eq!(names(&second["spec"]["initContainers"]), [INIT, SIDECAR]);
    assert_eq!(names(&second["spec"]["volumes"]), ["funicular-config", "funicular-token"]);
    assert_eq!(patched(&second, &remove(&second).unwrap()), before);
}

#[test]
fn keys_with_slashes_and_tildes_are_reached() {
    let key = "config.funicular.dev/log-level";
    let mut namespace = opted_in();
    namespace.annotations = Map::from_iter([(key.to_owned(), json!("info"))]);
    let before = with("/metadata/annotations", json!({ "a~1b/c~0": "kept" }));
    let pod = patched(&before, &patch(&before, &namespace, &Settings::default()).unwrap());
    assert_eq!(pod["metadata"]["annotations"]["a~1b/c~0"], "kept");
    assert_eq!(pod["metadata"]["annotations"][key], "info");
}

fn probe() -> impl Strategy<Value = Value> {
    prop_oneof![
        Just(json!({ "httpGet": { "port": 8080, "path": "/x" }, "periodSeconds": 3 })),
        Just(json!({ "httpGet": { "port": "http" } })),
        Just(json!({ "tcpSocket": { "port": "8081" } })),
        Just(json!({ "exec": { "command": ["true"] } })),
        Just(json!({ "grpc": { "port": 1 }, "newField": [1, { "a~b/c": null }] })),
    ]
}

fn container(name: String) -> impl Strategy<Value = Value> {
    let member = prop::collection::btree_map(
        prop::sample::select(vec!["livenessProbe", "readinessProbe", "startupProbe"]),
        probe(),
        0..3,
    );
    (member, any::<bool>()).prop_map(move |(members, ports)| {
        let mut container = json!({ "name": name, "image": "i" });
        members.into_iter().for_each(|(field, probe)| container[field] = probe);
        if ports {
            container["ports"] = json!([{ "name": "http", "containerPort": 8080 }]);
        }
        container
    })
}

fn containers(prefix: &'static str, count: std::ops::Range<usize>) -> impl Strategy<Value = Value> {
    count.prop_flat_map(move |count| {
        let each: Vec<_> = (0..count).map(|at| container(format!("{prefix}{at}"))).collect();
        each.prop_map(Value::Array)
    })
}

prop_compose! {
    fn pods()(
        containers in containers("c", 1..4),
        init in prop::option::of(containers("i", 0..3)),
        volumes in prop::option::of(Just(json!([{ "name": "v", "emptyDir": {} }]))),
        labels in prop::option::of(prop::collection::btree_map("[a-z]{1,4}", "[a-z]{0,3}", 0..3)),
        annotations in prop::option::of(prop::collection::btree_map("[a-z~/]{1,5}", "[a-z]{0,3}", 0..3)),
        grace in prop::option::of(0_u64..100),
        metadata in any::<bool>(),
    ) -> Value {
        let mut pod = json!({ "spec": { "containers": containers, "fieldOfTheFuture": { "x": [null, 1.5] } } });
        if let Some(init) = init { pod["spec"]["initContainers"] = init; }
        if let Some(volumes) = volumes { pod["spec"]["volumes"] = volumes; }
        if let Some(grace) = grace { pod["spec"]["terminationGracePeriodSeconds"] = json!(grace); }
        if metadata { pod["metadata"] = json!({ "generateName": "p-" }); }
        if let Some(labels) = labels { pod["metadata"]["labels"] = json!(labels); }
        if let Some(annotations) = annotations { pod["metadata"]["annotations"] = json!(annotations); }
        pod
    }
}

prop_compose! {
    fn settings()(
        native in any::<bool>(),
        secret in prop::option::of(Just("identity".to_owned())),
        rewrite_probes in any::<bool>(),
        leases in any::<bool>(),
    ) -> Settings {
        Settings { native, identity_secret: secret, rewrite_probes, leases, ..Settings::default() }
    }
}

proptest! {
    #[test]
    fn injecting_twice_is_injecting_once(pod in pods(), settings in settings()) {
        let once = patched(&pod, &patch(&pod, &opted_in(), &settings).unwrap());
        prop_assert_eq!(patch(&once, &opted_in(), &settings).unwrap(), vec![]);
    }

    #[test]
    fn removing_gives_back_the_pod(pod in pods(), settings in settings()) {
        let once = patched(&pod, &patch(&pod, &opted_in(), &settings).unwrap());
        prop_assert_eq!(patched(&once, &remove(&once).unwrap()), pod);
    }

    #[test]
    fn removing_gives_back_the_pod_through_a_change_of_settings(pod in pods(), first in settings(), second in settings()) {
        let once = patched(&pod, &patch(&pod, &opted_in(), &first).unwrap());
        let twice = patched(&once, &patch(&once, &opted_in(), &second).unwrap());
        prop_assert_eq!(patch(&twice, &opted_in(), &second).unwrap(), vec![]);
        prop_assert_eq!(patched(&twice, &remove(&twice).unwrap()), pod);
    }

    #[test]
    fn our_own_application_of_a_patch_is_the_standard_s(pod in pods(), settings in settings()) {
        let ops = patch(&pod, &opted_in(), &settings).unwrap();
        prop_assert_eq!(apply(&pod, &ops), patched(&pod, &ops));
    }

    #[test]
    fn nothing_that_is_sent_makes_it_panic(text in "[\\PC]{0,40}", pod in pods()) {
        let _ = serde_json::from_str::<Value>(&text).map(|value| inject(&value, &opted_in(), &Settings::default()));
        let mut pod = pod;
        pod["metadata"]["annotations"] = json!({ STATUS: text });
        let _ = inject(&pod, &opted_in(), &Settings::default());
        let _ = remove(&pod);
    }
}
