//! The API over real sockets, held against its description.

use std::collections::BTreeSet;
use std::time::Duration;

use arc_swap::ArcSwap;
use serde_json::{Value, json};

use super::*;
use crate::model::registry::{Command, Op, Reads};
use crate::model::zone::{Entry, Seed, Zone, Zones};
use crate::net::http_client::{Ask, Client, Credentials};
use crate::wire::dns::zonefile;

const SHOP: &str = "$TTL 60\n@ SOA ns1 admin 7 3600 600 86400 30\n@ NS ns1\nns1 A 192.0.2.1\nwww A 192.0.2.2\n";
const SEED: Seed = Seed(1);

fn entries(apex: &str, text: &str) -> Vec<Entry> {
    let records = zonefile::parse(text, &apex.parse().unwrap()).unwrap();
    let entry = |r: crate::wire::dns::Record| Entry { name: r.name, rtype: r.rtype.0, ttl: r.ttl, rdata: r.rdata };
    records.into_iter().map(entry).collect()
}

/// A server on loopback with `shop.peak` in the registry and `file.peak` from a file.
struct Bed {
    client: Client,
    serving: tokio::task::JoinHandle<Infallible>,
    description: Value,
}

impl Drop for Bed {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

fn api(text: &str) -> Api {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("peak.yaml");
    std::fs::write(&file, text).unwrap();
    crate::config::load::<crate::config::peak::Peak>(&file).unwrap().value.api.unwrap()
}

async fn backing() -> (Store, Served) {
    let store = Store::alone(SEED).await.unwrap();
    let (apex, entries_of) = ("shop.peak".parse().unwrap(), entries("shop.peak", SHOP));
    let op = Op::Create { apex, reads: Reads::Available, entries: entries_of };
    store.propose(Command { request: None, op }).await.unwrap().unwrap();
    let mut zones = Zones::new(SEED);
    let file = Zone::load(&"file.peak".parse().unwrap(), SEED, &entries("file.peak", SHOP)).unwrap().zone;
    zones.insert(Arc::new(file));
    (store, Arc::new(ArcSwap::from_pointee(zones)))
}

impl Bed {
    async fn new() -> Self {
        let (store, served) = backing().await;
        let api = api("api: { listen: \"127.0.0.1:0\" }");
        let opened = open(&api, routes(&store, &served), &Registry::new()).unwrap();
        let server = format!("http://{}", opened.local_addr().unwrap()).parse().unwrap();
        Self {
            client: Client::new(server, Credentials::default()),
            serving: tokio::spawn(opened.serve()),
            description: serde_saphyr::from_str(about::OPENAPI).unwrap(),
        }
    }

    /// Asks, and holds the answer against the description of `template`.
    async fn ask(&mut self, method: &'static str, template: &str, path: &str, body: Option<Value>) -> (u16, Value) {
        let media_type = if method == "PUT" { "text/dns" } else { "application/json" };
        let text = |body: Value| body.as_str().map_or_else(|| serde_json::to_vec(&body).unwrap(), |it| it.into());
        let body = body.map(|body| (media_type, text(body).into()));
        self.named(method, template, path, body, &[]).await
    }

    async fn named(
        &mut self,
        method: &'static str,
        template: &str,
        path: &str,
        body: Option<(&'static str, bytes::Bytes)>,
        fields: &[(&'static str, &str)],
    ) -> (u16, Value) {
        let ask = Ask { method, path, body, fields };
        let told = self.client.ask(&ask, Duration::from_secs(20)).await.unwrap();
        let body = serde_json::from_slice(&told.body)
            .unwrap_or_else(|_| Value::String(String::from_utf8(told.body.to_vec()).unwrap()));
        let operation = &self.description["paths"][template][method.to_lowercase()];
        let responses = &operation["responses"];
        let response =
            [&responses[told.status.to_string()], &responses["default"]].into_iter().find(|it| it.is_object());
        let response = self.resolved(response.unwrap_or_else(|| panic!("{method} {path}: {} {body}", told.status)));
        let (_, media) = response["content"].as_object().unwrap().iter().next().unwrap();
        if media["schema"].is_object() {
            self.fits(&body, &media["schema"], &format!("{method} {path}"));
        }
        (told.status, body)
    }

    fn resolved<'a>(&'a self, value: &'a Value) -> &'a Value {
        match value["$ref"].as_str() {
            Some(to) => self.description.pointer(to.strip_prefix('#').unwrap()).unwrap_or_else(|| panic!("no {to}")),
            None => value,
        }
    }

    /// Holds a value against a schema: the words of JSON Schema that the description uses.
    fn fits(&self, value: &Value, schema: &Value, at: &str) {
        let schema = self.resolved(schema);
        let kind = match value {
            Value::Null => "null",
            Value::Bool(_) => "boolean",
            Value::Number(_) => "integer",
            Value::String(_) => "string",
            Value::Array(_) => "array",
            Value::Object(_) => "object",
        };
        let types = schema["type"].as_array().cloned().unwrap_or_else(|| vec![schema["type"].clone()]);
        assert!(types.contains(&json!(kind)), "{at}: {value} is no {types:?}");
        if let Some(words) = schema["enum"].as_array() {
            assert!(words.contains(value), "{at}: {value} is none of {words:?}");
        }
        for (index, item) in value.as_array().into_iter().flatten().enumerate() {
            self.fits(item, &schema["items"], &format!("{at}/{index}"));
        }
        for required in schema["required"].as_array().into_iter().flatten().filter_map(Value::as_str) {
            assert!(value.get(required).is_some(), "{at} lacks {required}");
        }
        for (name, member) in value.as_object().into_iter().flatten() {
            let known = &schema["properties"][name];
            assert!(known.is_object(), "{at}: {name} is not described");
            self.fits(member, known, &format!("{at}/{name}"));
        }
    }

    async fn change(&mut self, body: Value) -> (u16, Value) {
        // What is sent is described as well.
        let schema = json!({ "$ref": "#/components/schemas/Batch" });
        self.fits(&body, &schema, "batch");
        self.ask("POST", "/v1/changes", "/v1/changes", Some(body)).await
    }
}

fn add(address: &str) -> Value {
    json!({ "zones": [{ "zone": "shop.peak",
        "changes": [{ "do": "add", "name": "www", "type": "A", "data": [address] }] }] })
}

#[tokio::test]
async fn the_description_has_every_path_and_no_other() {
    let (store, served) = backing().await;
    let description: Value = serde_saphyr::from_str(about::OPENAPI).unwrap();
    let routes = routes(&store, &served).and(crate::peak::slices::routes(&store, &Default::default()));
    let offered: BTreeSet<(String, String)> =
        routes.list().map(|(method, path)| (path.to_owned(), method.to_lowercase())).collect();
    let operations = |(path, item): (&String, &Value)| {
        let path = path.clone();
        let methods: Vec<String> =
            item.as_object().unwrap().keys().filter(|key| *key != "parameters").cloned().collect();
        methods.into_iter().map(move |method| (path.clone(), method)).collect::<Vec<_>>()
    };
    let described: BTreeSet<_> = description["paths"].as_object().unwrap().iter().flat_map(operations).collect();
    assert_eq!(offered, described);
}

#[tokio::test]
async fn what_is_looked_at_is_as_described() {
    let mut bed = Bed::new().await;
    let (status, zones) = bed.ask("GET", "/v1/zones", "/v1/zones", None).await;
    assert_eq!(status, 200);
    let told: Vec<(&str, bool)> = zones["zones"]
        .as_array()
        .unwrap()
        .iter()
        .map(|zone| (zone["name"].as_str().unwrap(), zone["replicated"].as_bool().unwrap()))
        .collect();
    assert_eq!(told, [("file.peak.", false), ("shop.peak.", true)]);
    let (_, status) = bed.ask("GET", "/v1/status", "/v1/status", None).await;
    assert_eq!(status["part"], "leader");
    let ask = Ask { method: "GET", path: "/v1/backup", body: None, fields: &[] };
    let backup = bed.client.ask(&ask, Duration::from_secs(20)).await.unwrap();
    assert!(backup.status == 200 && !backup.body.is_empty());
    let (_, text) = bed.ask("GET", "/v1/openapi.yaml", "/v1/openapi.yaml", None).await;
    assert_eq!(text, json!(about::OPENAPI));

    let records = "/v1/zones/{zone}/records";
    let (_, all) = bed.ask("GET", records, "/v1/zones/shop.peak/records", None).await;
    assert_eq!(all["sets"].as_array().unwrap().len(), 4);
    let (_, one) = bed.ask("GET", records, "/v1/zones/file.peak./records?name=WWW&type=a&strict=true", None).await;
    assert_eq!(one["sets"], json!([{ "name": "www.file.peak.", "type": "A", "ttl": 60, "data": ["192.0.2.2"] }]));
    let (_, file) = bed.ask("GET", "/v1/zones/{zone}/file", "/v1/zones/shop.peak/file", None).await;
    let file = file.as_str().unwrap();
    assert!(file.starts_with("shop.peak. 60 IN SOA "), "{file}");
    assert_eq!(entries("shop.peak", file).len(), 4);
}

#[tokio::test]
async fn a_change_is_made_once_said_twice_and_seen_at_once() {
    let mut bed = Bed::new().await;
    let (status, made) = bed.change(add("192.0.2.3")).await;
    assert_eq!((status, &made["zones"]), (200, &json!([{ "zone": "shop.peak.", "serial": 8, "changed": true }])));
    let (_, again) = bed.change(add("192.0.2.3")).await;
    assert_eq!(again["zones"], json!([{ "zone": "shop.peak.", "serial": 8, "changed": false }]));
    let path = "/v1/zones/shop.peak/records?name=www";
    let (_, records) = bed.ask("GET", "/v1/zones/{zone}/records", path, None).await;
    // The set has kept its TTL: none was given.
    assert_eq!(records["sets"][0]["ttl"], json!(60));
    assert_eq!(records["sets"][0]["data"].as_array().unwrap().len(), 2);
}

#[tokio::test]
async fn a_request_with_a_name_is_done_once() {
    let mut bed = Bed::new().await;
    let swap = json!({ "zones": [{ "zone": "shop.peak",
        "require": [{ "that": "exactly", "name": "www", "type": "A", "data": ["192.0.2.2"] }],
        "changes": [{ "do": "replace", "name": "www", "type": "A", "data": ["192.0.2.9"] }] }] });
    let body = || Some(("application/json", bytes::Bytes::from(serde_json::to_vec(&swap).unwrap())));
    let mut swap_as =
        async |key: &str| bed.named("POST", "/v1/changes", "/v1/changes", body(), &[("idempotency-key", key)]).await;
    let first = swap_as("\"one\"").await;
    assert_eq!(first.0, 200);
    assert_eq!(swap_as("\"one\"").await, first);
    let (status, refused) = swap_as("\"two\"").await;
    assert_eq!((status, refused["reason"].as_str()), (409, Some("set-differs")));
    assert_eq!(swap_as("a b").await.1["reason"], "key-malformed");
}

#[tokio::test]
async fn a_batch_of_several_zones_happens_whole_or_not_at_all() {
    let mut bed = Bed::new().await;
    let zone = SHOP.to_owned();
    let (status, _) = bed.ask("PUT", "/v1/zones/{zone}", "/v1/zones/other.peak?reads=strict", Some(json!(zone))).await;
    assert_eq!(status, 201);
    let batch = |require: &str| {
        json!({ "zones": [
        { "zone": "shop.peak", "changes": [{ "do": "remove", "name": "www" }] },
        { "zone": "other.peak", "require": [{ "that": require, "name": "new" }],
          "changes": [{ "do": "add", "name": "new", "type": "TXT", "ttl": 5, "data": ["x"] }] },
    ] })
    };
    let (status, refused) = bed.change(batch("present")).await;
    assert_eq!((status, refused["reason"].as_str()), (409, Some("name-free")));
    let mut rehearsal = batch("absent");
    rehearsal["dry_run"] = json!(true);
    let (_, rehearsed) = bed.change(rehearsal).await;
    assert_eq!(rehearsed["dry_run"], true);
    let (_, made) = bed.change(batch("absent")).await;
    assert_eq!(made["zones"], rehearsed["zones"]);
    assert_eq!(
        made["zones"],
        json!([{ "zone": "shop.peak.", "serial": 8, "changed": true },
        { "zone": "other.peak.", "serial": 8, "changed": true }])
    );
}

#[tokio::test]
async fn a_zone_is_taken_in_replaced_changed_and_let_go() {
    let mut bed = Bed::new().await;
    let (template, path) = ("/v1/zones/{zone}", "/v1/zones/new.peak");
    let (_, dry) = bed.ask("PUT", template, "/v1/zones/new.peak?dry_run", Some(json!(SHOP))).await;
    assert_eq!((&dry["dry_run"], &dry["zones"][0]["changed"]), (&json!(true), &json!(true)));
    assert_eq!(bed.ask("PUT", template, path, Some(json!(SHOP))).await.0, 201);
    let (status, same) = bed.ask("PUT", template, path, Some(json!(SHOP))).await;
    assert_eq!((status, &same["zones"][0]["changed"]), (200, &json!(false)));
    let (_, other) = bed.ask("PUT", template, path, Some(json!(SHOP.replace("192.0.2.2", "192.0.2.4")))).await;
    assert_eq!(other["zones"], json!([{ "zone": "new.peak.", "serial": 8, "changed": true }]));
    let (_, patched) = bed.ask("PATCH", template, path, Some(json!({ "reads": "strict" }))).await;
    assert_eq!(patched["zones"][0]["changed"], true);
    assert_eq!(bed.ask("DELETE", template, path, None).await.0, 200);
    assert_eq!(bed.ask("DELETE", template, path, None).await.1["reason"], "registry-no-zone");
}

#[tokio::test]
async fn what_cannot_be_done_is_refused_with_one_clear_reason() {
    let mut bed = Bed::new().await;
    let change = |zone: &str, change: Value| json!({ "zones": [{ "zone": zone, "changes": [change] }] });
    let remove = json!({ "do": "remove", "name": "www" });
    for (batch, status, reason) in [
        (change("none.peak", remove.clone()), 404, "zone-unknown"),
        (change("file.peak", remove.clone()), 409, "zone-not-replicated"),
        (change("a..b", remove.clone()), 400, "name-malformed"),
        (change("shop.peak", json!({ "do": "add", "name": "www", "type": "A", "data": ["x"] })), 422, "data-malformed"),
        (change("shop.peak", json!({ "do": "add", "name": "*.x", "type": "NS", "data": ["y"] })), 422, "wildcard-ns"),
    ] {
        let (code, refused) = bed.change(batch).await;
        assert_eq!((code, refused["reason"].as_str().unwrap()), (status, reason), "{refused}");
    }
    for (method, template, path, body, status, reason) in [
        ("POST", "/v1/changes", "/v1/changes", json!({ "zone": [] }), 400, "body-malformed"),
        ("PUT", "/v1/zones/{zone}", "/v1/zones/x.peak", json!("@ SOA x"), 422, "zone-file-faulty"),
        ("PUT", "/v1/zones/{zone}", "/v1/zones/file.peak", json!(SHOP), 409, "zone-not-replicated"),
        ("PUT", "/v1/zones/{zone}", "/v1/zones/x.peak?reads=often", json!(SHOP), 400, "query-malformed"),
        ("GET", "/v1/zones/{zone}/records", "/v1/zones/none.peak/records", json!(null), 404, "zone-unknown"),
        ("GET", "/v1/zones/{zone}/records", "/v1/zones/shop.peak/records?type=x", json!(null), 400, "query-malformed"),
    ] {
        let (code, refused) = bed.ask(method, template, path, Some(body)).await;
        assert_eq!((code, refused["reason"].as_str().unwrap()), (status, reason), "{path}: {refused}");
    }
    // The faults of a zone file come out together.
    let (_, refused) = bed.ask("PUT", "/v1/zones/{zone}", "/v1/zones/x.peak", Some(json!("@ SOA x\nwww A x\n"))).await;
    assert_eq!(refused["detail"].as_str().unwrap().lines().count(), 2, "{refused}");
}

#[tokio::test]
async fn paths_methods_and_bodies_beyond_what_is_described_are_refused() {
    let mut bed = Bed::new().await;
    let mut ask = async |method, path, body: usize| {
        let ask = Ask { method, path, body: Some(("text/dns", vec![b';'; body].into())), fields: &[] };
        let told = bed.client.ask(&ask, Duration::from_secs(20)).await.unwrap();
        (told.status, serde_json::from_slice::<Value>(&told.body).unwrap()["reason"].as_str().unwrap().to_owned())
    };
    assert_eq!(ask("GET", "/v1/nothing", 0).await, (404, "path-unknown".to_owned()));
    assert_eq!(ask("DELETE", "/v1/zones", 0).await, (405, "method-not-allowed".to_owned()));
    assert_eq!(ask("PUT", "/v1/zones/x.peak", serve::LONGEST + 1).await, (413, "body-too-long".to_owned()));
}

#[tokio::test]
async fn a_web_page_s_request_is_refused_on_loopback() {
    let mut bed = Bed::new().await;
    let ask = Ask { method: "GET", path: "/v1/zones", body: None, fields: &[("origin", "http://evil.example")] };
    let told = bed.client.ask(&ask, Duration::from_secs(20)).await.unwrap();
    assert_eq!(told.status, 403);
}

#[tokio::test]
async fn without_a_listed_caller_nothing_is_told_off_loopback() {
    let (store, served) = backing().await;
    let mut api = api("api: { listen: \"127.0.0.1:0\" }");
    // As if it were reachable from elsewhere.
    api.listen = "[::]:0".parse().unwrap();
    let opened = open(&api, routes(&store, &served), &Registry::new()).unwrap();
    let port = opened.local_addr().unwrap().port();
    let serving = tokio::spawn(opened.serve());
    let mut client = Client::new(format!("http://127.0.0.1:{port}").parse().unwrap(), Credentials::default());
    for (path, status) in [("/v1/zones", 401), ("/v1/status", 401), ("/v1/openapi.yaml", 200)] {
        let ask = Ask { method: "GET", path, body: None, fields: &[] };
        assert_eq!(client.ask(&ask, Duration::from_secs(20)).await.unwrap().status, status, "{path}");
    }
    serving.abort();
}

/// An authority in `ca.pem`, and a certificate for a name and its key in `NAME.pem` and `NAME.key`.
fn certificates(folder: &std::path::Path, names: &[&str]) {
    let key = rcgen::KeyPair::generate().unwrap();
    let mut authority = rcgen::CertificateParams::default();
    authority.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    std::fs::write(folder.join("ca.pem"), authority.self_signed(&key).unwrap().pem()).unwrap();
    let issuer = rcgen::Issuer::new(authority, key);
    for name in names {
        let key = rcgen::KeyPair::generate().unwrap();
        let certificate =
            rcgen::CertificateParams::new([(*name).to_owned()]).unwrap().signed_by(&key, &issuer).unwrap();
        std::fs::write(folder.join(format!("{name}.pem")), certificate.pem()).unwrap();
        std::fs::write(folder.join(format!("{name}.key")), key.serialize_pem()).unwrap();
    }
}

#[tokio::test]
async fn a_caller_is_known_by_its_certificate_and_a_stranger_is_not() {
    let (store, served) = backing().await;
    let folder = tempfile::tempdir().unwrap();
    let at = |file: &str| folder.path().join(file).display().to_string();
    certificates(folder.path(), &["localhost", "ops.example", "web.example"]);
    let api = api(&format!(
        "api:\n  listen: \"127.0.0.1:0\"\n  tls: {{ certificate: {}, key: {}, client_ca: {} }}\n  \
         callers: [{{ certificate: ops.example, may: write }}]\n",
        at("localhost.pem"),
        at("localhost.key"),
        at("ca.pem")
    ));
    let opened = open(&api, routes(&store, &served), &Registry::new()).unwrap();
    let server = format!("https://localhost:{}", opened.local_addr().unwrap().port());
    let serving = tokio::spawn(opened.serve());
    let ca = folder.path().join("ca.pem");
    let shown = |name: &str| {
        let file = |end| folder.path().join(format!("{name}.{end}"));
        crate::net::tls::ClientTls::with_identity(&ca, &file("pem"), &file("key")).unwrap()
    };
    let nothing = crate::net::tls::ClientTls::from_file(&ca).unwrap();
    for (tls, method, path, status) in [
        (shown("ops.example"), "GET", "/v1/zones", 200),
        (shown("ops.example"), "DELETE", "/v1/zones/shop.peak", 403),
        (shown("web.example"), "GET", "/v1/zones", 401),
        (nothing, "GET", "/v1/zones", 401),
    ] {
        let mut client = Client::new(server.parse().unwrap(), Credentials { tls: Some(tls), token: None });
        let told = client.ask(&Ask { method, path, body: None, fields: &[] }, Duration::from_secs(20)).await.unwrap();
        assert_eq!(told.status, status, "{method} {path}");
    }
    serving.abort();
}
