//! What the cluster's namespaces say, kept by watching them.

use std::collections::HashMap;
use std::pin::pin;

use futures_util::{Stream, StreamExt};
use parking_lot::RwLock;

use crate::model::inject::Namespace;
use crate::net::kubernetes::{Cluster, KubernetesError, NamespaceChange, NamespaceFacts};
use crate::ops::ready::Task;

/// All namespaces, by name.
#[derive(Debug, Default)]
pub(super) struct Namespaces(RwLock<HashMap<String, Namespace>>);

impl Namespaces {
    /// What a namespace says; one that the watch has not told of yet is asked for.
    ///
    /// # Errors
    /// The API server does not answer: whether the pod should have a sidecar cannot be told.
    pub(super) async fn find(&self, cluster: &Cluster, name: &str) -> Result<Namespace, KubernetesError> {
        if let Some(known) = self.0.read().get(name) {
            return Ok(known.clone());
        }
        let object = cluster.get(&format!("/api/v1/namespaces/{name}")).await?.unwrap_or_default();
        let part = |part: &str| object["metadata"][part].as_object().cloned().unwrap_or_default();
        Ok(Namespace { labels: part("labels"), annotations: part("annotations") })
    }

    /// Every namespace, by name.
    pub(super) fn all(&self) -> HashMap<String, Namespace> {
        self.0.read().clone()
    }

    /// Follows the changes for ever; `task` is done when all namespaces are known.
    pub(super) async fn follow(
        &self,
        changes: impl Stream<Item = Result<NamespaceChange, KubernetesError>>,
        task: Task,
    ) {
        let mut changes = pin!(changes);
        let mut task = Some(task);
        let mut begun = HashMap::new();
        while let Some(change) = changes.next().await {
            match change {
                Ok(NamespaceChange::Begin) => begun.clear(),
                Ok(NamespaceChange::There(facts)) => {
                    let (name, namespace) = known(facts);
                    begun.insert(name.clone(), namespace.clone());
                    self.0.write().insert(name, namespace);
                }
                Ok(NamespaceChange::Gone(name)) => {
                    self.0.write().remove(&name);
                }
                Ok(NamespaceChange::Complete) => {
                    *self.0.write() = std::mem::take(&mut begun);
                    task.take().into_iter().for_each(Task::done);
                }
                Err(error) => tracing::warn!(reason = error.reason(), "namespaces are not watched just now: {error}"),
            }
        }
    }
}

fn known(facts: NamespaceFacts) -> (String, Namespace) {
    (facts.name, Namespace { labels: facts.labels, annotations: facts.annotations })
}

#[cfg(test)]
mod tests {
    use futures_util::stream;

    use super::*;
    use crate::ops::ready::{Readiness, Ready};

    fn there(name: &str) -> Result<NamespaceChange, KubernetesError> {
        Ok(NamespaceChange::There(NamespaceFacts { name: name.to_owned(), ..NamespaceFacts::default() }))
    }

    fn names(namespaces: &Namespaces) -> Vec<String> {
        let mut names: Vec<String> = namespaces.all().into_keys().collect();
        names.sort();
        names
    }

    #[tokio::test]
    async fn a_watch_that_begins_anew_forgets_what_is_gone() {
        let (namespaces, ready) = (Namespaces::default(), Ready::new());
        let changes = [
            Ok(NamespaceChange::Begin),
            there("a"),
            there("b"),
            Ok(NamespaceChange::Complete),
            there("c"),
            Ok(NamespaceChange::Gone("a".to_owned())),
            Err(KubernetesError::Unconfigured("broken".to_owned())),
            Ok(NamespaceChange::Begin),
            there("c"),
            Ok(NamespaceChange::Complete),
        ];
        namespaces.follow(stream::iter(changes), ready.task("namespaces")).await;
        assert_eq!(names(&namespaces), ["c"]);
        assert_eq!(ready.check(), Readiness::Ready);
    }

    #[tokio::test]
    async fn nothing_is_ready_before_all_namespaces_are_known() {
        let (namespaces, ready) = (Namespaces::default(), Ready::new());
        let changes = stream::iter([Ok(NamespaceChange::Begin), there("a")]);
        namespaces.follow(changes, ready.task("namespaces")).await;
        assert_eq!(ready.check(), Readiness::Pending(vec!["namespaces"]));
        assert_eq!(names(&namespaces), ["a"]);
    }
}
