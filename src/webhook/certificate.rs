//! What proves the webhook's name to the API server: an authority and a certificate of our own in a Secret that all
//! replicas share, or files that somebody else renews. The same for Peak's nodes, which belong together by theirs.
//!
//! The Secret is replaced only in the version that was read; whoever loses takes what the winner has written. Private
//! keys are in the Secret and in memory, in no file, no log and no error.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwapOption;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose,
};
use serde_json::{Value, json};

use super::metrics::Metrics;
use super::rotation::{self, AUTHORITY_LIVES, BACKDATED, Held, Step};
use crate::model::UnixSeconds;
use crate::net::kubernetes::{Cluster, KubernetesError};
use crate::net::tls::{ServerTls, TlsFileError};
use crate::ops::clock;
use crate::ops::ready::Task;
use crate::wire::x509;

/// The protocols that the API server speaks to webhooks.
pub(super) const PROTOCOLS: [&str; 2] = ["h2", "http/1.1"];
/// Between two looks, at most.
const LONGEST_PAUSE: Duration = Duration::from_secs(30);

/// What is served just now; nothing before the first certificate is there.
pub(super) type Served = Arc<ArcSwapOption<ServerTls>>;

/// Why there is no certificate, or not the one that should be.
#[derive(Debug, thiserror::Error)]
pub(super) enum CertificateError {
    #[error(transparent)]
    Api(#[from] KubernetesError),
    #[error("a key or certificate cannot be made: {0}")]
    Make(#[from] rcgen::Error),
    #[error(transparent)]
    Tls(#[from] TlsFileError),
    #[error("{}: {cause}", .path.display())]
    Unreadable { path: std::path::PathBuf, cause: std::io::Error },
    #[error("the Secret {0} does not hold what it should: {1}; delete it, and it is made anew")]
    Secret(String, &'static str),
}

impl CertificateError {
    fn reason(&self) -> &'static str {
        match self {
            Self::Api(error) => error.reason(),
            Self::Make(_) => "certificate-not-made",
            Self::Tls(_) | Self::Unreadable { .. } => "certificate-file",
            Self::Secret(..) => "certificate-secret",
        }
    }
}

/// Our own authority and certificate.
pub(super) struct Keeper {
    pub(super) cluster: Cluster,
    pub(super) namespace: String,
    pub(super) secret: String,
    /// DNS names and addresses to prove, the first by which it is called.
    pub(super) names: Vec<String>,
    pub(super) life: Duration,
    pub(super) user: User,
}

/// Who shows the certificate.
pub(super) enum User {
    /// This process; the API server believes it by a configuration.
    Webhook {
        /// The configuration whose `caBundle` is kept up to date.
        configuration: String,
        /// What is shown just now.
        served: Served,
        /// Where its end is told.
        metrics: Metrics,
    },
    /// Pods that mount the Secret.
    Pods,
}

/// What the Secret holds, in PEM.
#[derive(Clone, PartialEq)]
struct Material {
    /// All authorities that are believed, the newest first.
    bundle: String,
    authority_key: String,
    certificate: String,
    key: String,
}

impl Keeper {
    /// Keeps the certificate for ever; `task` is done when there is one and the API server believes it.
    pub(super) async fn keep(self, mut task: Option<Task>) {
        let mut current: Option<Material> = None;
        let pause = LONGEST_PAUSE.min(self.life / 20).max(Duration::from_millis(500));
        loop {
            match self.look().await {
                Ok(material) => {
                    if current.as_ref() != Some(&material) {
                        match self.serve(&material) {
                            Ok(()) => current = Some(material),
                            Err(error) => tracing::error!(reason = error.reason(), "certificate not served: {error}"),
                        }
                    }
                    task.take().into_iter().for_each(Task::done);
                }
                Err(error) => tracing::warn!(reason = error.reason(), "certificate not looked after: {error}"),
            }
            tokio::time::sleep(if current.is_none() { Duration::from_millis(500) } else { pause }).await;
        }
    }

    /// Brings the Secret and the bundle of the configuration up to date.
    async fn look(&self) -> Result<Material, CertificateError> {
        let path = format!("/api/v1/namespaces/{}/secrets/{}", self.namespace, self.secret);
        let object = self.cluster.get(&path).await?;
        let (held, material) = match &object {
            None => (None, None),
            Some(object) => {
                let material = self.read(object)?;
                (Some(self.held(&material)?), Some(material))
            }
        };
        let step = rotation::next(held.as_ref(), clock::now(), self.life);
        let material = match (material, step) {
            (Some(material), Step::Keep) => material,
            (material, step) => {
                let changed = self.changed(material, step)?;
                tracing::info!(?step, secret = self.secret, "the certificate is renewed");
                self.write(&path, object, &changed).await?;
                changed
            }
        };
        if let User::Webhook { configuration, .. } = &self.user {
            self.publish(configuration, &material.bundle).await?;
        }
        Ok(material)
    }

    fn held(&self, material: &Material) -> Result<Held, CertificateError> {
        let wrong = |what| CertificateError::Secret(self.secret.clone(), what);
        let authorities = x509::validities(&material.bundle).ok_or_else(|| wrong("ca.crt is no certificate"))?;
        let leaf = x509::validities(&material.certificate).ok_or_else(|| wrong("tls.crt is no certificate"))?;
        Ok(Held { authorities, leaf: leaf[0] })
    }

    fn read(&self, object: &Value) -> Result<Material, CertificateError> {
        let part = |key: &'static str| {
            let decoded = object["data"][key].as_str().and_then(|text| STANDARD.decode(text).ok());
            let text = decoded.and_then(|octets| String::from_utf8(octets).ok());
            text.ok_or(CertificateError::Secret(self.secret.clone(), key))
        };
        Ok(Material {
            bundle: part("ca.crt")?,
            authority_key: part("ca.key")?,
            certificate: part("tls.crt")?,
            key: part("tls.key")?,
        })
    }

    /// The material after a step.
    fn changed(&self, material: Option<Material>, step: Step) -> Result<Material, CertificateError> {
        let now = clock::now();
        match (material, step) {
            (Some(mut material), Step::Authority) => {
                let (bundle, key) = authority(now, self.life * AUTHORITY_LIVES)?;
                material.bundle.insert_str(0, &bundle);
                material.authority_key = key;
                Ok(material)
            }
            (Some(mut material), Step::Leaf) => {
                (material.certificate, material.key) = leaf(&material.authority_key, &self.names, now, self.life)?;
                Ok(material)
            }
            (Some(mut material), Step::Sweep) => {
                material.bundle = alive(&material.bundle, now);
                Ok(material)
            }
            (Some(_) | None, _) => {
                let (bundle, authority_key) = authority(now, self.life * AUTHORITY_LIVES)?;
                let (certificate, key) = leaf(&authority_key, &self.names, now, self.life)?;
                Ok(Material { bundle, authority_key, certificate, key })
            }
        }
    }

    async fn write(&self, path: &str, object: Option<Value>, material: &Material) -> Result<(), CertificateError> {
        let encoded = |text: &str| STANDARD.encode(text);
        let data = json!({
            "ca.crt": encoded(&material.bundle),
            "ca.key": encoded(&material.authority_key),
            "tls.crt": encoded(&material.certificate),
            "tls.key": encoded(&material.key),
        });
        match object {
            Some(mut object) => {
                object["data"] = data;
                self.cluster.replace(path, &object).await?;
            }
            None => {
                let collection = format!("/api/v1/namespaces/{}/secrets", self.namespace);
                let metadata = json!({ "name": self.secret, "namespace": self.namespace });
                let secret = json!({
                    "apiVersion": "v1", "kind": "Secret", "type": "kubernetes.io/tls", "metadata": metadata, "data": data,
                });
                self.cluster.create(&collection, &secret).await?;
            }
        }
        Ok(())
    }

    /// Puts the bundle where the API server reads it, if it is not there.
    async fn publish(&self, configuration: &str, bundle: &str) -> Result<(), CertificateError> {
        let path = format!("/apis/admissionregistration.k8s.io/v1/mutatingwebhookconfigurations/{configuration}");
        let Some(object) = self.cluster.get(&path).await? else {
            tracing::warn!(configuration, "there is no such MutatingWebhookConfiguration");
            return Ok(());
        };
        let bundle = STANDARD.encode(bundle);
        let mut ops = vec![json!({
            // Somebody may have put another webhook in its place since it was read.
            "op": "test", "path": "/metadata/resourceVersion", "value": object["metadata"]["resourceVersion"],
        })];
        for (at, webhook) in object["webhooks"].as_array().into_iter().flatten().enumerate() {
            if webhook["clientConfig"]["caBundle"] != *bundle {
                let path = format!("/webhooks/{at}/clientConfig/caBundle");
                ops.push(json!({ "op": "add", "path": path, "value": bundle }));
            }
        }
        if ops.len() > 1 {
            self.cluster.patch(&path, &ops.into()).await?;
            tracing::info!(configuration, "caBundle brought up to date");
        }
        Ok(())
    }

    fn serve(&self, material: &Material) -> Result<(), CertificateError> {
        match &self.user {
            User::Webhook { served, metrics, .. } => serve(served, metrics, &material.certificate, &material.key),
            User::Pods => Ok(()),
        }
    }
}

fn serve(served: &Served, metrics: &Metrics, certificate: &str, key: &str) -> Result<(), CertificateError> {
    let tls = ServerTls::from_pem(certificate.as_bytes(), key.as_bytes(), &PROTOCOLS)?;
    served.store(Some(Arc::new(tls)));
    if let Some(validities) = x509::validities(certificate) {
        metrics.expires.set(i64::try_from(validities[0].not_after.0).unwrap_or(i64::MAX));
    }
    Ok(())
}

/// Serves what the files hold, and what they hold later; their contents count, not their times, since Kubernetes
/// exchanges the whole folder.
pub(super) async fn follow_files(file: &Path, key: &Path, served: Served, metrics: Metrics, task: Task) {
    let mut task = Some(task);
    let mut current = None;
    let read = |path: &Path| {
        std::fs::read_to_string(path).map_err(|cause| CertificateError::Unreadable { path: path.into(), cause })
    };
    loop {
        let found = read(file).and_then(|certificate| Ok((certificate, read(key)?)));
        match found {
            Ok(found) if current.as_ref() == Some(&found) => {}
            Ok(found) => match serve(&served, &metrics, &found.0, &found.1) {
                Ok(()) => {
                    current = Some(found);
                    task.take().into_iter().for_each(Task::done);
                }
                Err(error) => tracing::warn!(reason = error.reason(), "certificate not served: {error}"),
            },
            Err(error) => tracing::warn!(reason = error.reason(), "certificate not read: {error}"),
        }
        tokio::time::sleep(if task.is_some() { Duration::from_secs(1) } else { LONGEST_PAUSE }).await;
    }
}

/// The name of every authority of ours: its certificates are told apart by their keys.
fn authority_params(now: UnixSeconds, life: Duration) -> Result<CertificateParams, rcgen::Error> {
    let mut params = CertificateParams::new(Vec::<String>::new())?;
    params.distinguished_name.push(DnType::CommonName, "funicular authority");
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    limited(&mut params, now, life);
    Ok(params)
}

fn limited(params: &mut CertificateParams, now: UnixSeconds, life: Duration) {
    let now = std::time::UNIX_EPOCH + Duration::from_secs(now.0);
    params.not_before = (now - BACKDATED).into();
    params.not_after = (now + life).into();
}

/// A new authority: its certificate and its key.
fn authority(now: UnixSeconds, life: Duration) -> Result<(String, String), rcgen::Error> {
    let key = KeyPair::generate()?;
    Ok((authority_params(now, life)?.self_signed(&key)?.pem(), key.serialize_pem()))
}

/// A new certificate for `names` by the authority of this key, and its own key.
fn leaf(
    authority_key: &str,
    names: &[String],
    now: UnixSeconds,
    life: Duration,
) -> Result<(String, String), rcgen::Error> {
    let issuer = Issuer::new(authority_params(now, life)?, KeyPair::from_pem(authority_key)?);
    let mut params = CertificateParams::new(names.to_vec())?;
    params.distinguished_name.push(DnType::CommonName, names.first().map_or("funicular", String::as_str));
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
    params.use_authority_key_identifier_extension = true;
    limited(&mut params, now, life);
    let key = KeyPair::generate()?;
    Ok((params.signed_by(&key, &issuer)?.pem(), key.serialize_pem()))
}

/// The certificates that have not run out.
fn alive(bundle: &str, now: UnixSeconds) -> String {
    const BEGIN: &str = "-----BEGIN CERTIFICATE-----";
    let each = bundle.split(BEGIN).skip(1).map(|body| format!("{BEGIN}{body}"));
    each.filter(|pem| x509::validities(pem).is_some_and(|validities| validities[0].not_after > now)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY: Duration = Duration::from_secs(86_400);

    #[test]
    fn what_is_made_is_as_long_good_as_was_said() {
        let now = UnixSeconds(1_800_000_000);
        let (bundle, key) = authority(now, DAY * 5).unwrap();
        let (certificate, _) = leaf(&key, &["a.b.svc".to_owned(), "127.0.0.1".to_owned()], now, DAY).unwrap();
        let validity = |pem: &str| x509::validities(pem).unwrap()[0];
        assert_eq!(validity(&certificate).not_after.0, now.0 + 86_400);
        assert_eq!(validity(&bundle).not_after.0, now.0 + 5 * 86_400);
        assert_eq!(validity(&bundle).not_before.0, now.0 - 300);
    }

    #[test]
    fn authorities_that_have_run_out_leave_the_bundle_and_others_stay() {
        let now = UnixSeconds(1_800_000_000);
        let (old, _) = authority(now, DAY).unwrap();
        let (new, _) = authority(now, DAY * 2).unwrap();
        let bundle = format!("{new}{old}");
        assert_eq!(alive(&bundle, UnixSeconds(now.0 + 86_399)), bundle);
        assert_eq!(alive(&bundle, UnixSeconds(now.0 + 86_400)), new);
    }
}
