//! The programs that play the application: the demo's own tiny HTTP server and client, and a door to real ones.
//!
//! The own ones know nothing of this crate's addressing: plain `getaddrinfo`, plain TCP, plain HTTP/1.1. They stand in
//! where `curl` or `python3` are missing.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Command, ExitCode};

use anyhow::Context;
use bytes::Bytes;
use http_body_util::{BodyExt, Empty, Full};
use hyper::header::{CONTENT_TYPE, HOST};
use hyper::{Request, Response, Uri};
use hyper_util::rt::TokioIo;
use rustix::process::Signal;
use tokio::net::{TcpListener, TcpStream};

/// Hidden commands of `funicular demo`: the processes that it starts.
#[derive(Debug, clap::Subcommand)]
pub(super) enum Program {
    /// Answers every HTTP request with its own name.
    #[command(hide = true)]
    Serve(Serve),
    /// Fetches a URL over and over, a connection each, and prints body and status.
    #[command(hide = true)]
    Fetch(Fetch),
    /// Runs a program that dies with its parent.
    #[command(hide = true)]
    Exec(Exec),
}

/// Flags of the tiny HTTP server.
#[derive(Debug, clap::Args)]
pub(super) struct Serve {
    /// What to answer.
    #[arg(long)]
    name: String,
    /// Where to listen.
    #[arg(long)]
    listen: SocketAddr,
}

/// Flags of the tiny HTTP client.
#[derive(Debug, clap::Args)]
pub(super) struct Fetch {
    /// How often.
    #[arg(long, default_value_t = 1)]
    count: usize,
    /// Ask for IPv4 addresses alone, as an IPv4-only program does.
    #[arg(short = '4')]
    ipv4: bool,
    /// What to fetch.
    url: Uri,
}

/// A program and its arguments.
#[derive(Debug, clap::Args)]
pub(super) struct Exec {
    /// The process that starts it.
    #[arg(long)]
    parent: i32,
    /// The program, then its arguments.
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, required = true)]
    command: Vec<std::ffi::OsString>,
}

/// Runs one of the hidden commands.
///
/// # Errors
/// What ended it.
pub(super) fn run(program: Program) -> anyhow::Result<ExitCode> {
    match program {
        Program::Serve(serve) => block_on(self::serve(serve)),
        Program::Fetch(fetch) => block_on(self::fetch(fetch)),
        Program::Exec(exec) => self::exec(exec),
    }
}

fn block_on(work: impl Future<Output = anyhow::Result<ExitCode>>) -> anyhow::Result<ExitCode> {
    tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(work)
}

async fn serve(args: Serve) -> anyhow::Result<ExitCode> {
    let listener = TcpListener::bind(args.listen).await.with_context(|| format!("cannot listen on {}", args.listen))?;
    let body = Bytes::from(format!("{}\n", args.name));
    loop {
        let (stream, _) = listener.accept().await?;
        let body = body.clone();
        tokio::spawn(async move {
            let service = hyper::service::service_fn(move |_| {
                let mut answer = Response::new(Full::new(body.clone()));
                answer.headers_mut().insert(CONTENT_TYPE, hyper::header::HeaderValue::from_static("text/plain"));
                async move { Ok::<_, Infallible>(answer) }
            });
            // A client that goes away mid-request is the client's business.
            let _ = hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
        });
    }
}

async fn fetch(args: Fetch) -> anyhow::Result<ExitCode> {
    let host = args.url.host().context("the URL has no host")?.to_owned();
    let port = args.url.port_u16().unwrap_or(80);
    let mut failed = false;
    for _ in 0..args.count {
        match fetch_once(&args, &host, port).await {
            Ok((status, body)) => println!("{} {status}", body.trim_end()),
            Err(error) => {
                failed = true;
                println!("- 000");
                eprintln!("{error:#}");
            }
        }
    }
    Ok(if failed { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

async fn fetch_once(args: &Fetch, host: &str, port: u16) -> anyhow::Result<(u16, String)> {
    let mut addresses = tokio::net::lookup_host((host, port)).await?;
    let address = addresses
        .find(|address| address.is_ipv4() || !args.ipv4)
        .with_context(|| format!("{host} has no address of the family asked for"))?;
    let stream = TcpStream::connect(address).await?;
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    tokio::spawn(connection);
    let path = args.url.path_and_query().map_or("/", |path| path.as_str());
    let request = Request::get(path).header(HOST, host).body(Empty::<Bytes>::new())?;
    let answer = sender.send_request(request).await?;
    let status = answer.status().as_u16();
    let body = answer.into_body().collect().await?.to_bytes();
    Ok((status, String::from_utf8_lossy(&body).into_owned()))
}

/// Becomes another program, which the kernel kills when the thread that started it ends: so nothing that the demo
/// started can outlive it, however it ends.
fn exec(args: Exec) -> anyhow::Result<ExitCode> {
    rustix::process::set_parent_process_death_signal(Some(Signal::KILL))?;
    // The parent may have died before the request was made.
    let parent = rustix::process::getppid().map(|parent| parent.as_raw_nonzero().get());
    anyhow::ensure!(parent == Some(args.parent), "the process that started this one has gone");
    let (program, rest) = args.command.split_first().context("no program given")?;
    Err(Command::new(program).args(rest).exec()).with_context(|| format!("cannot run {}", program.display()))
}

/// Where a program is, if this user may run it: on the search path, or where ordinary users' search paths do not lead.
#[must_use]
pub fn find(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .chain(["/usr/sbin", "/sbin"].map(PathBuf::from))
        .map(|folder| folder.join(program))
        .find(|file| file.is_file() && rustix::fs::access(file, rustix::fs::Access::EXEC_OK).is_ok())
}
