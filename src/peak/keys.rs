//! The keys that sign what goes between servers (TSIG), as their files have them now.
//!
//! Which keys there are is the configuration's; what they are is read at the start, on SIGHUP, and when a file holds
//! something else. A file that does not serve leaves every key as it was. Whoever talks with another server holds a
//! [`NamedKey`] and takes the key anew each time.

use std::fmt;
use std::io;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arc_swap::ArcSwap;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use tokio::sync::Notify;

use crate::config::peak::{self, KeyAlgorithm};
use crate::model::Name;
use crate::ops::files::WatchedFiles;
use crate::ops::metrics::{Counters, Registry, labels};
use crate::wire::dns::tsig::{Algorithm, Key, Keys, TsigError};

labels! {
    /// How reading secrets again ended.
    pub(super) enum Outcome: "outcome" {
        /// The new secrets are used.
        Loaded = "loaded",
        /// Those from before are used.
        Faulty = "faulty",
    }
}

/// Counts how reading secrets again ended.
pub(super) fn reloads(registry: &Registry) -> Counters<Outcome> {
    registry.counters("funicular_dns_key_reloads_total", "Keys (TSIG) and secrets of cookies read again, by outcome.")
}

/// Why a key's file does not serve.
#[derive(Debug, thiserror::Error)]
pub(super) enum KeyError {
    /// The file.
    #[error("the secret of the key {name} in {file}: {cause}", file = .file.display())]
    Secret {
        /// The key's name.
        name: Name,
        /// Its file.
        file: PathBuf,
        /// What the system said.
        cause: io::Error,
    },
    /// What is in it. The text is not told: it may be a secret with a mistake in it.
    #[error("the secret of the key {name} in {file} is not base64 and nothing else", file = .file.display())]
    Base64 {
        /// The key's name.
        name: Name,
        /// Its file.
        file: PathBuf,
    },
    /// A secret that is none.
    #[error("the key {name}: {cause}")]
    Key {
        /// The key's name.
        name: Name,
        /// Why.
        cause: TsigError,
    },
}

/// All keys of this server.
pub(super) struct Keyring {
    configured: Vec<peak::Key>,
    keys: ArcSwap<Keys>,
    /// Has the files looked at.
    asked: Arc<Notify>,
    reloads: Counters<Outcome>,
}

impl fmt::Debug for Keyring {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.configured.iter().map(|key| &key.name)).finish()
    }
}

impl Keyring {
    /// Reads all of them. Needs a tokio runtime to be entered. Gives what follows their files as well.
    ///
    /// # Errors
    /// The first that does not serve.
    pub(super) fn open(
        configured: &[peak::Key],
        reloads: &Counters<Outcome>,
    ) -> Result<(Arc<Self>, impl Future<Output = ()> + use<>), KeyError> {
        // Looked at before they are read, so that no change falls between.
        let files = WatchedFiles::new(configured.iter().map(|key| key.secret_file.clone()));
        let keys = ArcSwap::from_pointee(keys(configured)?);
        let (configured, asked) = (configured.to_vec(), Arc::default());
        let keyring = Arc::new(Self { configured, keys, asked, reloads: reloads.clone() });
        let (asked, weak) = (Arc::clone(&keyring.asked), Arc::downgrade(&keyring));
        let following = files.follow(asked, move || match weak.upgrade() {
            Some(keyring) => {
                keyring.read_again();
                ControlFlow::Continue(())
            }
            None => ControlFlow::Break(()),
        });
        Ok((keyring, following))
    }

    /// They, as they are now.
    pub(super) fn now(&self) -> Arc<Keys> {
        self.keys.load_full()
    }

    /// The key with this name, to be taken when it is needed; none when no such key is configured.
    pub(super) fn named(self: &Arc<Self>, name: &Name) -> Option<NamedKey> {
        let known = self.configured.iter().any(|key| key.name == *name);
        known.then(|| NamedKey { keyring: Arc::clone(self), name: name.clone() })
    }

    /// Has the files read again, if they hold something else than before.
    pub(super) fn reload(&self) {
        self.asked.notify_one();
    }

    fn read_again(&self) {
        match keys(&self.configured) {
            Ok(keys) => {
                self.keys.store(Arc::new(keys));
                self.reloads.increment(&Outcome::Loaded);
                tracing::info!(keys = self.configured.len(), "keys read again");
            }
            Err(error) => {
                self.reloads.increment(&Outcome::Faulty);
                tracing::error!(%error, "keys stay as they were");
            }
        }
    }
}

/// One of the keys, by its name.
#[derive(Clone, Debug)]
pub(super) struct NamedKey {
    keyring: Arc<Keyring>,
    name: Name,
}

impl NamedKey {
    /// It, as it is now.
    pub(super) fn now(&self) -> Option<Arc<Key>> {
        self.keyring.now().find(&self.name).cloned()
    }
}

fn read(name: &Name, file: &Path) -> Result<String, KeyError> {
    let secret = |cause| KeyError::Secret { name: name.clone(), file: file.to_owned(), cause };
    std::fs::read_to_string(file).map_err(secret)
}

/// A key on the command line, `[ALGORITHM:]NAME=FILE`.
///
/// # Errors
/// Why it is none, for people.
pub(super) fn flag(text: &str) -> Result<Arc<Key>, String> {
    let (head, file) = text.split_once('=').ok_or("expected NAME=FILE, or ALGORITHM:NAME=FILE")?;
    let (algorithm, name) = head.split_once(':').unwrap_or((Algorithm::Sha256.text(), head));
    let algorithm = algorithm.parse::<Algorithm>().map_err(|error| error.to_string())?;
    let name: Name = name.parse().map_err(|error| format!("{name:?} is no domain name: {error}"))?;
    let file = Path::new(file);
    let text = read(&name, file).map_err(|error| error.to_string())?;
    parsed(&name, algorithm, file, &text).map_err(|error| error.to_string())
}

fn keys(configured: &[peak::Key]) -> Result<Keys, KeyError> {
    let key = |key: &peak::Key| {
        let algorithm = match key.algorithm {
            KeyAlgorithm::Sha256 => Algorithm::Sha256,
            KeyAlgorithm::Sha384 => Algorithm::Sha384,
            KeyAlgorithm::Sha512 => Algorithm::Sha512,
        };
        parsed(&key.name, algorithm, &key.secret_file, &read(&key.name, &key.secret_file)?)
    };
    configured.iter().map(key).collect()
}

fn parsed(name: &Name, algorithm: Algorithm, file: &Path, text: &str) -> Result<Arc<Key>, KeyError> {
    let base64 = |_| KeyError::Base64 { name: name.clone(), file: file.to_owned() };
    let secret = STANDARD.decode(text.trim()).map_err(base64)?;
    Key::new(name, algorithm, &secret).map(Arc::new).map_err(|cause| KeyError::Key { name: name.clone(), cause })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::UnixSeconds;
    use crate::wire::dns::tsig::Asking;
    use crate::wire::dns::{Message, Type};

    const NOW: UnixSeconds = UnixSeconds(1_000_000);

    fn keyring(folder: &tempfile::TempDir, secret: &str) -> (Arc<Keyring>, PathBuf) {
        let file = folder.path().join("key");
        std::fs::write(&file, secret).unwrap();
        let key =
            peak::Key { name: "k.peak.".parse().unwrap(), algorithm: KeyAlgorithm::Sha256, secret_file: file.clone() };
        (Keyring::open(&[key], &reloads(&Registry::new())).unwrap().0, file)
    }

    /// Whether what is signed with the one is accepted by the other.
    fn fits(key: &NamedKey, keys: &Keys) -> bool {
        let mut message = Message::query(1, "peak.".parse().unwrap(), Type::SOA).encode(512);
        let _ = Asking::sign(&key.now().unwrap(), &mut message, NOW);
        keys.receive(&message, NOW).is_ok()
    }

    #[tokio::test]
    async fn a_secret_that_changed_counts_once_it_is_read_again_and_one_that_is_none_never_does() {
        let folder = tempfile::tempdir().unwrap();
        let (keyring, file) = keyring(&folder, &STANDARD.encode([1; 32]));
        let key = keyring.named(&"K.peak.".parse().unwrap()).unwrap();
        let before = keyring.now();
        std::fs::write(&file, STANDARD.encode([2; 32])).unwrap();
        assert!(fits(&key, &before));
        keyring.read_again();
        assert!(!fits(&key, &before) && fits(&key, &keyring.now()));
        for wrong in ["no base64", ""] {
            std::fs::write(&file, wrong).unwrap();
            let held = keyring.now();
            keyring.read_again();
            assert!(fits(&key, &held) && fits(&key, &keyring.now()), "{wrong:?}");
        }
        assert_eq!(keyring.reloads.with(&Outcome::Loaded).value(), 1);
        assert_eq!(keyring.reloads.with(&Outcome::Faulty).value(), 2);
    }

    #[test]
    fn a_key_on_the_command_line_has_a_name_a_file_and_perhaps_an_algorithm() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("key");
        std::fs::write(&file, STANDARD.encode([1; 32])).unwrap();
        let file = file.display();
        assert_eq!(flag(&format!("k.peak={file}")).unwrap().name().to_string(), "k.peak.");
        assert!(flag(&format!("hmac-sha512:k.peak={file}")).is_ok());
        for wrong in [format!("{file}"), format!("hmac-md5:k={file}"), format!("k..peak={file}"), "k=/nowhere".into()] {
            assert!(flag(&wrong).is_err(), "{wrong}");
        }
    }

    #[tokio::test]
    async fn a_key_that_is_not_configured_has_no_name_here() {
        let folder = tempfile::tempdir().unwrap();
        let (keyring, _) = keyring(&folder, &STANDARD.encode([1; 32]));
        assert!(keyring.named(&"other.peak.".parse().unwrap()).is_none());
    }
}
