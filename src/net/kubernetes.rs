//! The API server of Kubernetes, spoken to in raw JSON: what is newer than this program passes through unharmed.
//!
//! Owns the client (kube), its credentials and its connection; the only module that names either. Source: Kubernetes'
//! API conventions (verbs, `resourceVersion`, `Status`, watches with bookmarks).

use std::path::{Path, PathBuf};

use futures_util::{Stream, StreamExt};
use hyper::header::DATE;
use hyper::http::{Method, Request};
use kube::api::{ApiResource, DynamicObject, PartialObjectMeta};
use kube::client::Body;
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::core::GroupVersionKind;
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Api, Client, Config};
use serde_json::{Map, Value};

use crate::model::UnixSeconds;
use crate::wire::moment;

/// Where a pod finds the namespace that it runs in.
const OWN_NAMESPACE: &str = "/var/run/secrets/kubernetes.io/serviceaccount/namespace";

/// Why the API server was not reached, or did not do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum KubernetesError {
    /// Nobody says where it is, or what to prove oneself with.
    #[error("nobody says how to reach the API server: {0}")]
    Unconfigured(String),
    /// It could not be reached, or gave no answer of its own.
    #[error("{what}: the API server is not reached: {cause}")]
    Unreached {
        /// What was asked.
        what: String,
        /// What went wrong.
        cause: String,
    },
    /// It refused.
    #[error("{what}: the API server refuses: {message} ({code} {reason})")]
    Refused {
        /// What was asked.
        what: String,
        /// The HTTP status.
        code: u16,
        /// Its one word for it.
        reason: String,
        /// Its sentence.
        message: String,
    },
}

impl KubernetesError {
    /// The stable label of metrics and logs.
    #[must_use]
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Unconfigured(_) => "api-unconfigured",
            Self::Unreached { .. } => "api-unreached",
            Self::Refused { code: 401 | 403, .. } => "api-forbidden",
            Self::Refused { code: 409, .. } => "api-conflict",
            Self::Refused { .. } => "api-refused",
        }
    }

    /// Whether somebody else was faster: the object is there already, or has changed since it was read.
    #[must_use]
    pub fn is_conflict(&self) -> bool {
        matches!(self, Self::Refused { code: 409, .. })
    }

    fn is_missing(&self) -> bool {
        matches!(self, Self::Refused { code: 404, .. })
    }
}

/// An API server, and who we are to it. Cheap to clone.
#[derive(Clone)]
pub struct Cluster {
    client: Client,
    namespace: String,
}

impl std::fmt::Debug for Cluster {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Cluster").field("namespace", &self.namespace).finish_non_exhaustive()
    }
}

/// What is known of a namespace.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct NamespaceFacts {
    /// Its name.
    pub name: String,
    /// Its labels.
    pub labels: Map<String, Value>,
    /// Its annotations.
    pub annotations: Map<String, Value>,
}

/// What happens to the cluster's namespaces.
#[derive(Clone, Debug, PartialEq)]
pub enum NamespaceChange {
    /// All of them, from the beginning.
    Begin,
    /// One that is there, new or changed.
    There(NamespaceFacts),
    /// One that is gone.
    Gone(String),
    /// Since the beginning all have been told.
    Complete,
}

impl Cluster {
    /// The cluster that `kubeconfig` names, or the one that this pod runs in. Nothing is asked of it yet.
    ///
    /// # Errors
    /// [`KubernetesError::Unconfigured`].
    pub async fn new(kubeconfig: Option<&Path>) -> Result<Self, KubernetesError> {
        let unconfigured = |error: &dyn std::fmt::Display| KubernetesError::Unconfigured(error.to_string());
        let config = match kubeconfig {
            Some(file) => {
                let read = Kubeconfig::read_from(PathBuf::from(file)).map_err(|error| unconfigured(&error))?;
                Config::from_custom_kubeconfig(read, &KubeConfigOptions::default())
                    .await
                    .map_err(|error| unconfigured(&error))?
            }
            None => Config::incluster().map_err(|error| unconfigured(&error))?,
        };
        let namespace = match std::fs::read_to_string(OWN_NAMESPACE) {
            Ok(name) if kubeconfig.is_none() => name.trim().to_owned(),
            Ok(_) | Err(_) => config.default_namespace.clone(),
        };
        let client = Client::try_from(config).map_err(|error| unconfigured(&error))?;
        Ok(Self { client, namespace })
    }

    /// The namespace that this process is in, or that the kubeconfig names.
    #[must_use]
    pub fn namespace(&self) -> &str {
        &self.namespace
    }

    /// The object at a path such as `/api/v1/namespaces/shop`; `None` where there is none.
    ///
    /// # Errors
    /// [`KubernetesError`].
    pub async fn get(&self, path: &str) -> Result<Option<Value>, KubernetesError> {
        match self.ask(Method::GET, path, None, None).await {
            Ok(object) => Ok(Some(object)),
            Err(error) if error.is_missing() => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Only the metadata of the objects at a path, a page at a time: it may carry `?labelSelector=…&limit=…`.
    ///
    /// # Errors
    /// [`KubernetesError`].
    pub async fn list_metadata(&self, path: &str) -> Result<Value, KubernetesError> {
        let form = "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1";
        self.ask(Method::GET, path, Some(("accept", form)), None).await
    }

    /// Makes an object in the collection at `path`.
    ///
    /// # Errors
    /// [`KubernetesError`]; a conflict when it is there.
    pub async fn create(&self, path: &str, object: &Value) -> Result<Value, KubernetesError> {
        self.ask(Method::POST, path, Some(("content-type", "application/json")), Some(object)).await
    }

    /// Replaces the object at `path`.
    ///
    /// # Errors
    /// [`KubernetesError`]; a conflict when it is not the version that `object` says.
    pub async fn replace(&self, path: &str, object: &Value) -> Result<Value, KubernetesError> {
        self.ask(Method::PUT, path, Some(("content-type", "application/json")), Some(object)).await
    }

    /// Changes the object at `path` by a JSON Patch (RFC 6902).
    ///
    /// # Errors
    /// [`KubernetesError`].
    pub async fn patch(&self, path: &str, ops: &Value) -> Result<Value, KubernetesError> {
        self.ask(Method::PATCH, path, Some(("content-type", "application/json-patch+json")), Some(ops)).await
    }

    /// The minor number of the server's version: 29 of 1.29.
    ///
    /// # Errors
    /// [`KubernetesError`]; no number counts as not reached.
    pub async fn minor_version(&self) -> Result<u32, KubernetesError> {
        let version = self.ask(Method::GET, "/version", None, None).await?;
        // Vendors write `29+`.
        let digits: String =
            version["minor"].as_str().unwrap_or_default().chars().take_while(char::is_ascii_digit).collect();
        digits.parse().map_err(|_| KubernetesError::Unreached {
            what: "GET /version".to_owned(),
            cause: format!("its version is {version}"),
        })
    }

    /// What time it is by the server's clock, to the second, when it says so.
    ///
    /// # Errors
    /// [`KubernetesError`].
    pub async fn time(&self) -> Result<Option<UnixSeconds>, KubernetesError> {
        let unreached = |cause: String| KubernetesError::Unreached { what: "GET /version".to_owned(), cause };
        let request = Request::get("/version").body(Body::empty()).map_err(|error| unreached(error.to_string()))?;
        let answer = self.client.send(request).await.map_err(|error| unreached(chain(&error)))?;
        Ok(answer.headers().get(DATE).and_then(|date| moment::http_date(date.to_str().ok()?)))
    }

    /// The cluster's namespaces and whatever happens to them, for ever. A watch that breaks or is too old (410) is begun
    /// anew after a growing pause.
    pub fn namespaces(&self) -> impl Stream<Item = Result<NamespaceChange, KubernetesError>> + Send + use<> {
        let resource = ApiResource::from_gvk(&GroupVersionKind::gvk("", "v1", "Namespace"));
        let api: Api<PartialObjectMeta<DynamicObject>> = Api::all_with(self.client.clone(), &resource);
        let watched = watcher(api, watcher::Config::default()).default_backoff();
        watched.map(|event| {
            event.map(changed).map_err(|error| KubernetesError::Unreached {
                what: "WATCH namespaces".to_owned(),
                cause: error.to_string(),
            })
        })
    }

    async fn ask(
        &self,
        method: Method,
        path: &str,
        header: Option<(&str, &str)>,
        body: Option<&Value>,
    ) -> Result<Value, KubernetesError> {
        let what = format!("{method} {}", path.split('?').next().unwrap_or_default());
        let unreached = |cause: String| KubernetesError::Unreached { what: what.clone(), cause };
        let mut request = Request::builder().method(method).uri(path);
        if let Some((name, value)) = header {
            request = request.header(name, value);
        }
        let body = body.map(|body| body.to_string().into_bytes()).unwrap_or_default();
        let request = request.body(body).map_err(|error| unreached(error.to_string()))?;
        self.client.request(request).await.map_err(|error| {
            let kube::Error::Api(status) = error else { return unreached(chain(&error)) };
            KubernetesError::Refused {
                what: what.clone(),
                code: status.code,
                reason: status.reason.clone(),
                message: status.message.clone(),
            }
        })
    }
}

/// An error and everything that caused it, of which the library's own words say little.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(inner) = cause {
        text.push_str(&format!(": {inner}"));
        cause = inner.source();
    }
    text
}

fn changed(event: watcher::Event<PartialObjectMeta<DynamicObject>>) -> NamespaceChange {
    match event {
        watcher::Event::Init => NamespaceChange::Begin,
        watcher::Event::InitDone => NamespaceChange::Complete,
        watcher::Event::InitApply(object) | watcher::Event::Apply(object) => NamespaceChange::There(facts(object)),
        watcher::Event::Delete(object) => NamespaceChange::Gone(object.metadata.name.unwrap_or_default()),
    }
}

fn facts(object: PartialObjectMeta<DynamicObject>) -> NamespaceFacts {
    let texts = |texts: Option<std::collections::BTreeMap<String, String>>| {
        texts.into_iter().flatten().map(|(key, value)| (key, Value::from(value))).collect()
    };
    let metadata = object.metadata;
    NamespaceFacts {
        name: metadata.name.unwrap_or_default(),
        labels: texts(metadata.labels),
        annotations: texts(metadata.annotations),
    }
}
