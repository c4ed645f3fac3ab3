//! The secrets of cookies (RFC 7873, RFC 9018), and their rollover.
//!
//! From a file they are the same at all servers behind one address, and are read again when it holds something else.
//! Without a file this process draws its own, and another every day. In both cases what was made with the secret before is
//! accepted on: a cookie is renewed when it is shown, and good for an hour at most.

use std::io;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use tokio::sync::Notify;

use super::keys::Outcome;
use crate::ops::entropy;
use crate::ops::files::WatchedFiles;
use crate::ops::metrics::Counters;
use crate::wire::dns::cookie::{CookieError, CookieSecret, CookieSecrets};

/// How long a secret that was drawn here makes cookies (RFC 7873 §7.1: a month at most).
const DAY: Duration = Duration::from_secs(24 * 60 * 60);

/// Why a file of secrets does not serve.
#[derive(Debug, thiserror::Error)]
pub(super) enum CookiesError {
    /// The file.
    #[error("the secrets of cookies in {file}: {cause}", file = .file.display())]
    File {
        /// Which.
        file: PathBuf,
        /// What the system said.
        cause: io::Error,
    },
    /// What is in it.
    #[error("the secrets of cookies in {file}: {cause}", file = .file.display())]
    Text {
        /// Which.
        file: PathBuf,
        /// What is wrong.
        cause: CookieError,
    },
}

/// The secrets, as they are now.
#[derive(Debug)]
pub(super) struct Cookies {
    pub(super) secrets: Arc<ArcSwap<CookieSecrets>>,
    /// Has the file looked at.
    asked: Arc<Notify>,
}

impl Cookies {
    /// Reads the file, or draws a secret, and keeps to it while the runtime runs, which must be entered.
    ///
    /// # Errors
    /// When the file does not serve.
    pub(super) fn open(file: Option<&Path>, reloads: &Counters<Outcome>) -> Result<Self, CookiesError> {
        let asked = Arc::default();
        let Some(file) = file else {
            let secrets = Arc::new(ArcSwap::from_pointee(CookieSecrets::new(drawn(), [])));
            tokio::spawn(replace_daily(Arc::clone(&secrets)));
            return Ok(Self { secrets, asked });
        };
        // Looked at before it is read, so that no change falls between.
        let watched = WatchedFiles::new([file.to_owned()]);
        let secrets = Arc::new(ArcSwap::from_pointee(read(file)?));
        let (held, file, reloads) = (Arc::clone(&secrets), file.to_owned(), reloads.clone());
        tokio::spawn(watched.follow(Arc::clone(&asked), move || {
            read_again(&held, &file, &reloads);
            ControlFlow::Continue(())
        }));
        Ok(Self { secrets, asked })
    }

    /// Has the file read again, if it holds something else than before.
    pub(super) fn reload(&self) {
        self.asked.notify_one();
    }
}

fn drawn() -> CookieSecret {
    CookieSecret::new(entropy::draw().to_ne_bytes())
}

async fn replace_daily(secrets: Arc<ArcSwap<CookieSecrets>>) {
    loop {
        tokio::time::sleep(DAY).await;
        secrets.store(Arc::new(secrets.load().followed_by(drawn())));
    }
}

fn read(file: &Path) -> Result<CookieSecrets, CookiesError> {
    let text = std::fs::read_to_string(file).map_err(|cause| CookiesError::File { file: file.to_owned(), cause })?;
    text.parse().map_err(|cause| CookiesError::Text { file: file.to_owned(), cause })
}

fn read_again(secrets: &ArcSwap<CookieSecrets>, file: &Path, reloads: &Counters<Outcome>) {
    match read(file) {
        Ok(read) => {
            secrets.store(Arc::new(read));
            reloads.increment(&Outcome::Loaded);
            tracing::info!("secrets of cookies read again");
        }
        Err(error) => {
            reloads.increment(&Outcome::Faulty);
            tracing::error!(%error, "secrets of cookies stay as they were");
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::{IpAddr, Ipv4Addr};

    use super::*;
    use crate::model::UnixSeconds;
    use crate::ops::metrics::Registry;
    use crate::peak::keys;
    use crate::wire::dns::query::QueryCookie;

    const NOW: UnixSeconds = UnixSeconds(1_000_000);
    const PEER: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

    fn given(cookies: &Cookies) -> QueryCookie {
        let client = [7; 8];
        let (server, _) = cookies.secrets.load().answer(&QueryCookie { client, server: None }, PEER, NOW);
        QueryCookie { client, server: Some(server) }
    }

    fn takes(cookies: &Cookies, cookie: &QueryCookie) -> bool {
        cookies.secrets.load().answer(cookie, PEER, NOW).1
    }

    #[tokio::test(start_paused = true)]
    async fn a_secret_of_its_own_makes_cookies_for_a_day_and_counts_for_another() {
        let cookies = Cookies::open(None, &keys::reloads(&Registry::new())).unwrap();
        let (cookie, moment) = (given(&cookies), Duration::from_secs(1));
        tokio::time::sleep(DAY - moment).await;
        assert_eq!(given(&cookies), cookie);
        tokio::time::sleep(2 * moment).await;
        assert!(given(&cookies) != cookie && takes(&cookies, &cookie));
        tokio::time::sleep(DAY).await;
        assert!(!takes(&cookies, &cookie));
    }

    #[tokio::test]
    async fn a_file_of_secrets_is_read_again_and_one_that_does_not_serve_changes_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let (file, registry) = (folder.path().join("cookies"), Registry::new());
        let reloads = keys::reloads(&registry);
        let (old, new) = ("00112233445566778899aabbccddeeff", "ffeeddccbbaa99887766554433221100");
        assert!(matches!(Cookies::open(Some(&file), &reloads), Err(CookiesError::File { .. })));
        std::fs::write(&file, "secret").unwrap();
        assert!(matches!(Cookies::open(Some(&file), &reloads), Err(CookiesError::Text { .. })));
        std::fs::write(&file, old).unwrap();
        let cookies = Cookies::open(Some(&file), &reloads).unwrap();
        let of_old = given(&cookies);

        // RFC 9018 §5: at all servers the new one counts first, then makes cookies, and then the old one goes.
        for (text, makes_new, takes_old) in
            [(format!("{old}\n{new}"), false, true), (format!("{new}\n{old}"), true, true), (new.into(), true, false)]
        {
            std::fs::write(&file, text).unwrap();
            read_again(&cookies.secrets, &file, &reloads);
            assert_eq!((given(&cookies) != of_old, takes(&cookies, &of_old)), (makes_new, takes_old));
        }
        let of_new = given(&cookies);
        std::fs::write(&file, "").unwrap();
        read_again(&cookies.secrets, &file, &reloads);
        assert!(takes(&cookies, &of_new));
        assert!(reloads.with(&Outcome::Loaded).value() >= 3 && reloads.with(&Outcome::Faulty).value() >= 1);
    }
}
