//! One question of the API server, from its octets to ours.

use std::sync::Arc;
use std::time::Instant;

use hyper::StatusCode;
use serde_json::Value;

use super::events::{Events, What};
use super::metrics::{Metrics, Outcome};
use super::namespaces::Namespaces;
use crate::model::inject::review::{self, Review, ReviewFault};
use crate::model::inject::{self, Injection, Op, Refusal, Settings};
use crate::net::kubernetes::{Cluster, KubernetesError};
use crate::ops::metrics::Reason;

/// Everything that an answer needs.
#[derive(Debug)]
pub(super) struct Desk {
    pub(super) cluster: Cluster,
    pub(super) namespaces: Arc<Namespaces>,
    pub(super) settings: Settings,
    pub(super) events: Events,
    pub(super) metrics: Metrics,
}

/// Why there is no answer. The API server takes that for a refusal (`failurePolicy: Fail`) and says so to whoever makes
/// the pod, who tries again.
#[derive(Debug, thiserror::Error)]
pub(super) enum Unanswerable {
    #[error("the question is no JSON: {0}")]
    NotJson(#[from] serde_json::Error),
    #[error(transparent)]
    Review(#[from] ReviewFault),
    #[error("the namespace is not known: {0}")]
    Namespace(#[from] KubernetesError),
}

impl Unanswerable {
    pub(super) fn reason(&self) -> &'static str {
        match self {
            Self::NotJson(_) => "review-no-json",
            Self::Review(fault) => fault.reason(),
            Self::Namespace(error) => error.reason(),
        }
    }

    pub(super) fn status(&self) -> StatusCode {
        match self {
            Self::NotJson(_) | Self::Review(_) => StatusCode::BAD_REQUEST,
            Self::Namespace(_) => StatusCode::SERVICE_UNAVAILABLE,
        }
    }
}

impl Desk {
    /// The answer to an AdmissionReview.
    pub(super) async fn answer(&self, question: &[u8]) -> Result<Value, Unanswerable> {
        let begun = Instant::now();
        let answer = self.decide(question).await;
        if let Err(error) = &answer {
            self.metrics.pods.increment(&(Outcome::Failed, Reason(error.reason())));
            tracing::warn!(reason = error.reason(), "no answer: {error}");
        }
        self.metrics.seconds.observe(begun.elapsed().as_secs_f64());
        answer
    }

    async fn decide(&self, question: &[u8]) -> Result<Value, Unanswerable> {
        let document: Value = serde_json::from_slice(question)?;
        let review = Review::read(&document)?;
        if !review.creates_pod {
            return Ok(review::allowed(review.uid, &[], &[]));
        }
        let namespace = self.namespaces.find(&self.cluster, review.namespace).await?;
        let decided = inject::inject(review.pod, &namespace, &self.settings);
        self.tell(&review, &decided);
        Ok(match decided {
            Ok(Injection { outcome: inject::Outcome::Injected(ops), warnings }) => {
                review::allowed(review.uid, &ops, &warnings)
            }
            Ok(Injection { outcome: inject::Outcome::Left(_), warnings }) => {
                review::allowed(review.uid, &[] as &[Op], &warnings)
            }
            Err(refusal) => review::denied(review.uid, &refusal),
        })
    }

    /// Counts, logs and, for the maker of the pod, tells what was decided.
    fn tell(&self, review: &Review<'_>, decided: &Result<Injection, Refusal>) {
        let (outcome, reason) = match decided {
            Ok(Injection { outcome: inject::Outcome::Injected(_), .. }) => (Outcome::Injected, "injected"),
            Ok(Injection { outcome: inject::Outcome::Left(left), .. }) => (Outcome::Left, left.reason()),
            Err(refusal) => (Outcome::Refused, refusal.reason()),
        };
        self.metrics.pods.increment(&(outcome, Reason(reason)));
        let metadata = &review.pod["metadata"];
        let pod = metadata["name"].as_str().or_else(|| metadata["generateName"].as_str()).unwrap_or("?");
        tracing::debug!(namespace = review.namespace, pod, reason, dry_run = review.dry_run, "decided");
        if review.dry_run {
            return;
        }
        let Some(owner) = review.owner() else { return };
        match decided {
            Ok(Injection { outcome: inject::Outcome::Injected(_), .. }) => {
                let message = "its pods get a sidecar".to_owned();
                self.events.tell(What {
                    namespace: review.namespace.to_owned(),
                    owner,
                    warns: false,
                    word: "Injected",
                    message,
                });
            }
            Ok(Injection { outcome: inject::Outcome::Left(_), .. }) => {}
            Err(refusal) => {
                let message = format!("{refusal} ({reason})");
                self.events.tell(What {
                    namespace: review.namespace.to_owned(),
                    owner,
                    warns: true,
                    word: "InjectionRefused",
                    message,
                });
            }
        }
    }
}
