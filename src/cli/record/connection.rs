//! The way to Peak's API: which servers, what is shown to them, and asking the next one when one does not answer.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context as _;
use bytes::Bytes;
use serde::de::DeserializeOwned;
use tokio::time::Instant;

use crate::net::http_client::{self, Ask, Client, ClientError, Credentials};
use crate::net::tls::ClientTls;
use crate::ops::entropy;
use crate::wire::api::Problem;

/// Between two rounds of asking all servers.
const PAUSE: Duration = Duration::from_millis(100);

/// Where Peak is, and what is shown to it.
#[derive(Clone, Debug, clap::Args)]
pub(in crate::cli) struct Server {
    /// Nodes of Peak, the one asked first ahead: http://HOST:PORT or https://HOST:PORT.
    #[arg(
        long = "server",
        value_name = "URL",
        env = "FUNICULAR_API",
        value_delimiter = ',',
        default_value = "http://127.0.0.1:7443"
    )]
    servers: Vec<http_client::Server>,
    /// File with the certificates (PEM) of the authorities that vouch for the nodes; for https.
    #[arg(long, value_name = "FILE", env = "FUNICULAR_API_CA")]
    ca: Option<PathBuf>,
    /// File with a certificate (PEM) to show, and its chain; needs --private-key.
    #[arg(long = "cert", value_name = "FILE", env = "FUNICULAR_API_CERT", requires_all = ["private_key", "ca"])]
    certificate: Option<PathBuf>,
    /// File with its private key (PEM).
    #[arg(long, value_name = "FILE", env = "FUNICULAR_API_KEY", requires = "certificate")]
    private_key: Option<PathBuf>,
    /// File with a bearer token.
    #[arg(long, value_name = "FILE", env = "FUNICULAR_API_TOKEN_FILE")]
    token_file: Option<PathBuf>,
    /// How long to go on asking, in seconds.
    #[arg(long, value_name = "SECONDS", default_value_t = 10)]
    timeout: u64,
}

/// The nodes of Peak.
pub(in crate::cli) struct Peak {
    nodes: Vec<Client>,
    patience: Duration,
}

/// What a refused request was told.
#[derive(Debug, thiserror::Error)]
#[error("{} ({})", .0.detail, .0.reason)]
struct Refused(Problem);

impl Server {
    /// Whether nobody has said where Peak is.
    pub(in crate::cli) fn is_default(&self) -> bool {
        matches!(&*self.servers, [one] if !one.secure && one.host == "127.0.0.1" && one.port == 7443)
    }
}

impl Peak {
    pub(in crate::cli) fn new(server: &Server) -> anyhow::Result<Self> {
        let tls = match (&server.ca, &server.certificate, &server.private_key) {
            (Some(ca), Some(certificate), Some(key)) => Some(ClientTls::with_identity(ca, certificate, key)?),
            (Some(ca), _, _) => Some(ClientTls::from_file(ca)?),
            (None, _, _) => None,
        };
        let read = |file: &PathBuf| std::fs::read_to_string(file).with_context(|| file.display().to_string());
        let token = server.token_file.as_ref().map(read).transpose()?.map(|text| text.trim().to_owned());
        let client = |server: &http_client::Server| {
            Client::new(server.clone(), Credentials { tls: tls.clone(), token: token.clone() })
        };
        Ok(Self { nodes: server.servers.iter().map(client).collect(), patience: Duration::from_secs(server.timeout) })
    }

    /// Looks at something.
    pub(in crate::cli) async fn look(&mut self, path: &str) -> anyhow::Result<Vec<u8>> {
        self.ask(&Ask { method: "GET", path, body: None, fields: &[] }).await
    }

    /// Asks for a change, under one name however often that takes.
    pub(in crate::cli) async fn change<T: DeserializeOwned>(
        &mut self,
        method: &'static str,
        path: &str,
        (media_type, body): (&'static str, Vec<u8>),
        key: Option<String>,
    ) -> anyhow::Result<T> {
        let key = key.unwrap_or_else(|| format!("{:032x}", entropy::draw()));
        let body = Some((media_type, Bytes::from(body)));
        let told = self.ask(&Ask { method, path, body, fields: &[("idempotency-key", &key)] }).await?;
        Ok(serde_json::from_slice(&told)?)
    }

    /// Asks one node after another, until one says yes or no or the time is over. Whoever changes something names the
    /// request, so asking again is safe.
    async fn ask(&mut self, ask: &Ask<'_>) -> anyhow::Result<Vec<u8>> {
        let deadline = Instant::now() + self.patience;
        let turns = self.nodes.len().max(1) as u32;
        loop {
            let mut last = None;
            for node in &mut self.nodes {
                let left = deadline.saturating_duration_since(Instant::now());
                match node.ask(ask, left.min(self.patience / turns)).await {
                    Ok(told) if told.status < 300 => return Ok(told.body.into()),
                    Ok(told) => {
                        let refused = refused(node, told.status, &told.body);
                        if told.status != 503 {
                            return Err(refused);
                        }
                        last = Some(refused);
                    }
                    Err(error) if may_pass(&error) => last = Some(error.into()),
                    Err(error) => return Err(error.into()),
                }
            }
            if Instant::now() + PAUSE >= deadline {
                let failed = last.unwrap_or_else(|| anyhow::anyhow!("no server is given"));
                return Err(failed);
            }
            tokio::time::sleep(PAUSE).await;
        }
    }
}

/// Whether the same may go well in a moment, or at another node.
fn may_pass(error: &ClientError) -> bool {
    match error {
        ClientError::Unresolved { .. } | ClientError::Connect { .. } => true,
        ClientError::Ended { .. } | ClientError::Answer { .. } | ClientError::TimedOut { .. } => true,
        ClientError::Tls { .. }
        | ClientError::NoAuthorities { .. }
        | ClientError::Host { .. }
        | ClientError::Request(_) => false,
    }
}

fn refused(node: &Client, status: u16, body: &[u8]) -> anyhow::Error {
    match serde_json::from_slice(body) {
        Ok(problem) => Refused(problem).into(),
        Err(_) => anyhow::anyhow!("{} answers with status {status}: it is no Peak", node.server()),
    }
}
