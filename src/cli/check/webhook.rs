//! Whether the webhook would be asked, be believed, and answer.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;

use super::findings::Finding;
use super::kubernetes::{running, unlooked};
use crate::net::kubernetes::Cluster;
use crate::ops::clock;
use crate::wire::x509;

const CONFIGURATION: &str = "/apis/admissionregistration.k8s.io/v1/mutatingwebhookconfigurations/funicular-webhook";
const SECRET: &str = "funicular-webhook-certificate";
/// With less left, nobody has renewed it although they should have for weeks.
const LEAST_DAYS: u64 = 7;
const DAY: u64 = 86_400;

pub(super) async fn look(cluster: &Cluster, namespace: &str) -> Vec<Finding> {
    let hint = "install it: kubectl apply -k deploy/overlays/…, or the Helm chart";
    let configuration = match cluster.get(CONFIGURATION).await {
        Ok(Some(configuration)) => configuration,
        Ok(None) => {
            let seen = "there is no MutatingWebhookConfiguration funicular-webhook";
            return vec![Finding::wrong("webhook-configured", seen, hint)];
        }
        Err(error) => return vec![unlooked("webhook-configured", &error)],
    };
    let bundles: Vec<Option<String>> = entries(&configuration).map(bundle).collect();
    let secret = cluster.get(&format!("/api/v1/namespaces/{namespace}/secrets/{SECRET}")).await;
    let mut findings = vec![configured(&configuration, &bundles)];
    findings.push(match &secret {
        Ok(Some(secret)) => own_certificate(secret, &bundles),
        Ok(None) => foreign_certificate(&bundles),
        Err(error) => unlooked("webhook-certificate", error),
    });
    findings.push(running(cluster, namespace, "deployments", "funicular-webhook", "webhook-running").await);
    findings
}

fn entries(configuration: &Value) -> impl Iterator<Item = &Value> {
    configuration["webhooks"].as_array().into_iter().flatten()
}

/// The authorities of an entry, in PEM.
fn bundle(entry: &Value) -> Option<String> {
    let text = entry["clientConfig"]["caBundle"].as_str()?;
    String::from_utf8(STANDARD.decode(text).ok()?).ok().filter(|text| !text.is_empty())
}

fn configured(configuration: &Value, bundles: &[Option<String>]) -> Finding {
    let ignoring = entries(configuration).find(|entry| entry["failurePolicy"] != "Fail");
    if bundles.iter().any(Option::is_none) {
        let hint =
            "the webhook writes it when it runs, cert-manager when the configuration is annotated: look at their logs";
        return Finding::wrong("webhook-configured", "caBundle is missing, so the API server believes nobody", hint);
    }
    match ignoring {
        None => Finding::right("webhook-configured", format!("asked in {} ways", bundles.len())),
        Some(entry) => {
            let seen = format!("{} is ignored when it fails", entry["name"].as_str().unwrap_or_default());
            Finding::doubtful(
                "webhook-configured",
                seen,
                "failurePolicy: Fail keeps pods from starting without a sidecar",
            )
        }
    }
}

/// The certificate that the webhook makes itself.
fn own_certificate(secret: &Value, bundles: &[Option<String>]) -> Finding {
    const CHECK: &str = "webhook-certificate";
    let part = |key: &str| {
        let octets = STANDARD.decode(secret["data"][key].as_str()?).ok()?;
        String::from_utf8(octets).ok()
    };
    let hint = format!("delete the Secret {SECRET}: the webhook makes it anew");
    let (Some(authorities), Some(certificate)) = (part("ca.crt"), part("tls.crt")) else {
        return Finding::wrong(CHECK, format!("the Secret {SECRET} does not hold one"), hint);
    };
    if bundles.iter().flatten().any(|bundle| *bundle != authorities) {
        let hint = "the webhook brings it up to date within half a minute, if it may: look at its log";
        return Finding::wrong(CHECK, "caBundle is not what the Secret holds", hint);
    }
    days(CHECK, &certificate, &hint)
}

/// One that somebody else renews; only what vouches for it can be seen.
fn foreign_certificate(bundles: &[Option<String>]) -> Finding {
    let Some(bundle) = bundles.iter().flatten().next() else {
        return Finding::wrong("webhook-certificate", "there is none", "the webhook has not run yet: look at its log");
    };
    days("webhook-certificate", bundle, "look at who renews it, such as cert-manager")
}

/// How long the last of these certificates is good.
fn days(check: &'static str, pem: &str, hint: &str) -> Finding {
    let ends = x509::validities(pem).and_then(|all| all.iter().map(|validity| validity.not_after.0).max());
    let Some(ends) = ends else { return Finding::wrong(check, "it is no certificate", hint) };
    let left = ends.saturating_sub(clock::now().0) / DAY;
    Finding::holds(check, left >= LEAST_DAYS, format!("good for {left} days"), hint)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn an_entry_without_authorities_is_wrong_and_one_that_is_ignored_doubtful() {
        let of = |policy: &str, bundle: &str| json!({ "webhooks": [{ "name": "n", "failurePolicy": policy, "clientConfig": { "caBundle": bundle } }] });
        let judged = |configuration: Value| {
            let bundles: Vec<_> = entries(&configuration).map(bundle).collect();
            configured(&configuration, &bundles)
        };
        assert_eq!(judged(of("Fail", "YQ==")), Finding::right("webhook-configured", "asked in 1 ways"));
        assert!(judged(of("Fail", "")) != judged(of("Ignore", "YQ==")));
    }
}
