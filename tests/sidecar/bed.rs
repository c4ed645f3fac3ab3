//! A bed for the data path: an authority, keys, services, sidecar halves and peers, all on loopback.
//!
//! Nothing here redirects: where a connection "was going" is told to each half instead.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::io;
use std::net::{Ipv6Addr, SocketAddr, SocketAddrV6};
use std::ops::Range;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use funicular::model::ssa::{Rule, Space};
use funicular::model::token::{Algorithm, Claims};
use funicular::model::{Name, UnixSeconds};
use funicular::net::namespace::NetNs;
use funicular::net::original_dst::OriginalDstError;
use funicular::net::routes::{Action, LOOPBACK, MAIN, Netlink, Route};
use funicular::net::tls::{ClientStream, ClientTls, ServerTls};
use funicular::net::tunnel::{Party, Tunnel};
use funicular::ops::clock;
use funicular::ops::drain::Drain;
use funicular::ops::metrics::Registry;
use funicular::sidecar::directory::{Directory, Found};
use funicular::sidecar::inbound::admit::{OwnService, Told};
use funicular::sidecar::inbound::forward::Forward;
use funicular::sidecar::inbound::{Inbound, PROTOCOLS, Policy};
use funicular::sidecar::memory::Memory;
use funicular::sidecar::original::OriginalDst;
use funicular::sidecar::outbound::authenticate::{Proof, Signer, Tokens};
use funicular::sidecar::outbound::health::Health;
use funicular::sidecar::outbound::retries::Retries;
use funicular::sidecar::outbound::transport::{PP2, TUNNEL};
use funicular::sidecar::outbound::{Identity, Limits, Outbound, Sources};
pub(crate) use funicular::sidecar::quota::{Bounds, Quota};
use funicular::sidecar::report::Report;
use funicular::sidecar::resolve::{ResolveError, Service};
use funicular::sidecar::stub::StandIns;
use funicular::wire::jwks::{Jwks, to_jwks};
use funicular::wire::jwt::{SigningKey, TrustedIssuer};
use funicular::wire::proxy_header::{ProxyHeader, TokenOctets};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;

pub(crate) const SERVICE: &str = "orders.shop.peak";
pub(crate) const ISSUER: &str = "https://issuer.example";
pub(crate) const WEB: &str = "spiffe://shop.example/ns/default/sa/web";
/// Where inbound connections of these tests "were going": it fits [`RULE`] for a caller at `::1`.
pub(crate) const DESTINATION: &str = "[2001:db8:5:1:0:7::1]:80";
/// In 2001:db8:5:1::/64.
pub(crate) const RULE: &str = "v=ssa1 layout=fixed:32/7,random:32 token=pp2 gen=3";

pub(crate) fn name(text: &str) -> Name {
    text.parse().unwrap()
}

/// Who vouches for servers and callers in a test, with its files in a folder that goes with it.
pub(crate) struct Authority {
    folder: tempfile::TempDir,
    issuer: rcgen::Issuer<'static, rcgen::KeyPair>,
    pem: String,
    pub(crate) key: SigningKey,
}

impl Authority {
    pub(crate) fn new() -> Self {
        let key = rcgen::KeyPair::generate().unwrap();
        let mut params = rcgen::CertificateParams::default();
        params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("ca.pem"), params.self_signed(&key).unwrap().pem()).unwrap();
        let issuer = rcgen::Issuer::new(params, key);
        let pem = rcgen::KeyPair::generate_for(&rcgen::PKCS_ED25519).unwrap().serialize_pem();
        let key = SigningKey::from_pem(pem.as_bytes(), "k1").unwrap();
        Self { folder, issuer, pem, key }
    }

    pub(crate) fn path(&self, file: &str) -> PathBuf {
        self.folder.path().join(file)
    }

    pub(crate) fn client(&self) -> ClientTls {
        ClientTls::from_file(&self.path("ca.pem")).unwrap()
    }

    /// Writes `cert.pem` and `key.pem` for a name, and serves with them.
    pub(crate) fn server(&self, name: &str) -> ServerTls {
        self.server_during(name, 1975..4096)
    }

    /// The same, with a certificate that holds from the first day of one year to that of another.
    pub(crate) fn server_during(&self, name: &str, years: Range<i32>) -> ServerTls {
        let key = rcgen::KeyPair::generate().unwrap();
        let mut params = rcgen::CertificateParams::new([name.to_owned()]).unwrap();
        params.not_before = rcgen::date_time_ymd(years.start, 1, 1);
        params.not_after = rcgen::date_time_ymd(years.end, 1, 1);
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        std::fs::write(self.path("cert.pem"), certificate.pem()).unwrap();
        std::fs::write(self.path("key.pem"), key.serialize_pem()).unwrap();
        ServerTls::from_files(&self.path("cert.pem"), &self.path("key.pem"), &PROTOCOLS).unwrap()
    }

    pub(crate) fn trusted(&self) -> Vec<TrustedIssuer> {
        let keys = Jwks::parse(to_jwks(&[&self.key]).as_bytes()).unwrap();
        vec![TrustedIssuer::new(ISSUER, keys, &[Algorithm::EdDsa])]
    }

    /// A key cannot be copied, so it is read again.
    pub(crate) fn key_again(&self) -> SigningKey {
        SigningKey::from_pem(self.pem.as_bytes(), self.key.kid()).unwrap()
    }

    pub(crate) fn token(&self) -> String {
        self.key.sign(&claims()).unwrap()
    }
}

pub(crate) fn signing_key(algorithm: &'static rcgen::SignatureAlgorithm, kid: &str) -> SigningKey {
    let pem = rcgen::KeyPair::generate_for(algorithm).unwrap().serialize_pem();
    SigningKey::from_pem(pem.as_bytes(), kid).unwrap()
}

/// Claims that hold now for [`SERVICE`].
pub(crate) fn claims() -> Claims {
    let now = clock::now();
    Claims {
        issuer: ISSUER.into(),
        subject: WEB.parse().unwrap(),
        audience: vec![SERVICE.into()],
        issued_at: now,
        not_before: now,
        expires: UnixSeconds(now.0 + 300),
    }
}

/// A service in these prefixes with these rules.
pub(crate) fn service(prefixes: &[&str], rules: &[&str], port: Option<u16>) -> Service {
    let items: Vec<_> = prefixes.iter().map(|prefix| format!("2:{prefix}").parse().unwrap()).collect();
    let space = Space::new(&items).unwrap();
    let rules = rules.iter().map(|text| Rule::parse(text, &space).unwrap()).collect();
    Service { name: name(SERVICE), space, rules, port }
}

/// Services by name; every other name leads to nobody who answers.
#[derive(Default)]
pub(crate) struct Table(HashMap<Name, Arc<Service>>);

impl Table {
    pub(crate) fn of(services: impl IntoIterator<Item = Service>) -> Arc<Self> {
        Arc::new(Self(services.into_iter().map(|service| (service.name.clone(), Arc::new(service))).collect()))
    }
}

impl Directory for Table {
    fn lookup<'a>(&'a self, name: &'a Name) -> Found<'a> {
        if !name.is_at_or_below(&self::name("peak")) {
            return Box::pin(std::future::ready(Err(ResolveError::NotInPeak { name: name.clone() })));
        }
        let unreachable = || ResolveError::Unreachable { name: name.clone(), zone: "peak".parse().unwrap() };
        Box::pin(std::future::ready(self.0.get(name).cloned().ok_or_else(unreachable)))
    }

    fn in_space(&self, addr: Ipv6Addr) -> Option<Arc<Service>> {
        self.0.values().find(|service| service.space.contains(addr)).cloned()
    }
}

/// Every connection was going to `destination`.
pub(crate) fn going_to(destination: impl Into<SocketAddr>) -> OriginalDst {
    let destination = destination.into();
    OriginalDst::by(move |_| Ok(destination))
}

/// Every connection came straight to our port.
pub(crate) fn straight_to_us() -> OriginalDst {
    OriginalDst::by(|tcp| Err(OriginalDstError::NotRedirected { local: tcp.local_addr().unwrap() }))
}

/// A running half of a sidecar.
pub(crate) struct Running {
    pub(crate) address: SocketAddr,
    pub(crate) registry: Registry,
    pub(crate) drain: Drain,
}

impl Running {
    pub(crate) async fn connect(&self) -> TcpStream {
        TcpStream::connect(self.address).await.unwrap()
    }

    /// Waits until the metrics say this.
    pub(crate) async fn says(&self, line: &str) {
        let said = async {
            while !self.registry.text().lines().any(|said| said == line) {
                tokio::task::yield_now().await;
            }
        };
        if tokio::time::timeout(Duration::from_secs(10), said).await.is_err() {
            panic!("no line {line}\n{}", self.registry.text());
        }
    }

    pub(crate) async fn refused(&self, direction: &str, reason: &str, times: u32) {
        self.says(&format!("funicular_refusals_total{{direction=\"{direction}\",reason=\"{reason}\"}} {times}")).await;
    }
}

pub(crate) struct OutboundBed {
    pub(crate) outbound: Outbound,
    registry: Registry,
}

impl OutboundBed {
    /// An outbound half whose application always calls [`SERVICE`] by its stand-in, on port 80.
    pub(crate) fn new(authority: &Authority, directory: Arc<dyn Directory>) -> Self {
        Self::with_tokens_of(HOUR, authority, directory)
    }

    /// The same, with tokens of this life.
    pub(crate) fn with_tokens_of(life: Duration, authority: &Authority, directory: Arc<dyn Directory>) -> Self {
        let registry = Registry::new();
        let report = Report::new(&registry);
        let pools = ("240.0.0.0/4".parse().unwrap(), "fd46:554e:1c00::/64".parse().unwrap());
        let stand_ins = Arc::new(StandIns::new(pools.0, pools.1).unwrap());
        let stand_in = stand_ins.assign(&name(SERVICE)).unwrap().1;
        let signer = Signer { key: authority.key_again(), issuer: ISSUER.into(), subject: WEB.parse().unwrap(), life };
        let tokens = Arc::new(Tokens::new(Proof::Key(signer), report.clone()));
        let limits = Limits {
            connect_deadline: Duration::from_secs(10),
            attempt_delay: Duration::from_millis(250),
            attempt_timeout: Duration::from_millis(500),
            mark: None,
        };
        let outbound = Outbound {
            original: going_to(SocketAddrV6::new(stand_in, 80, 0, 0)),
            directory,
            stand_ins,
            secrets: Arc::default(),
            identity: Some(Identity { tokens, tls: authority.client() }),
            tunnels: Arc::new(report.pool()),
            http: Arc::new(funicular::sidecar::outbound::http::Shared::new(&report)),
            sources: Sources::default(),
            health: Arc::<Health>::default(),
            retries: Arc::<Retries>::default(),
            circuits: Quota::new(Bounds { open: 1_000, pending: 1_000 }),
            reserved: BTreeSet::new(),
            memory: plenty(),
            limits,
            report,
        };
        Self { outbound, registry }
    }

    pub(crate) async fn start(self) -> Running {
        let listener = TcpListener::bind("[::1]:0").await.unwrap();
        let (address, drain) = (listener.local_addr().unwrap(), Drain::new());
        tokio::spawn(Outbound::run(Arc::new(ArcSwap::from_pointee(self.outbound)), listener, drain.watch()));
        Running { address, registry: self.registry, drain }
    }

    /// Starts it at a port where programs ask for their connections.
    pub(crate) async fn start_explicit(self) -> Running {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (address, drain) = (listener.local_addr().unwrap(), Drain::new());
        tokio::spawn(Outbound::run_explicit(Arc::new(ArcSwap::from_pointee(self.outbound)), listener, drain.watch()));
        Running { address, registry: self.registry, drain }
    }
}

pub(crate) struct InboundBed {
    pub(crate) inbound: Inbound,
    registry: Registry,
}

impl InboundBed {
    /// A strict inbound half of [`SERVICE`] whose connections all arrive at [`DESTINATION`], for an application on
    /// this port.
    pub(crate) fn new(authority: &Authority, application: u16) -> Self {
        let registry = Registry::new();
        let report = Report::new(&registry);
        let ports = BTreeMap::from([(80, application)]);
        let (proxy_header, told) = (BTreeSet::new(), Told::default());
        let own = OwnService { name: name(SERVICE), callers: None, ports, proxy_header, told };
        let inbound = Inbound {
            original: going_to(DESTINATION.parse::<SocketAddr>().unwrap()),
            directory: Table::of([service(&["2001:db8:5:1::/64"], &[RULE], None)]),
            secrets: Arc::default(),
            policy: Policy::Strict,
            services: vec![own],
            tls: Some(authority.server(SERVICE)),
            verifier: Arc::new(report.verifier(authority.trusted())),
            handshake_timeout: Duration::from_secs(10),
            sources: Quota::new(Bounds { open: 1_000, pending: 1_000 }),
            handshakes: Quota::new(Bounds { open: 1_000, pending: 1_000 }),
            leased: None,
            memory: plenty(),
            forward: Forward { mark: None, reserved: BTreeSet::new() },
            report,
        };
        Self { inbound, registry }
    }

    pub(crate) async fn start(self) -> Running {
        self.start_replaceable().await.0
    }

    /// The same, with the place where its settings are replaced while it runs.
    pub(crate) async fn start_replaceable(self) -> (Running, Arc<ArcSwap<Inbound>>) {
        let listener = TcpListener::bind("[::1]:0").await.unwrap();
        let (address, drain) = (listener.local_addr().unwrap(), Drain::new());
        let settings = Arc::new(ArcSwap::from_pointee(self.inbound));
        tokio::spawn(Inbound::run(Arc::clone(&settings), listener, drain.watch()));
        (Running { address, registry: self.registry, drain }, settings)
    }
}

/// Runs a test on a host of its own, to which every address of the prefix belongs.
pub(crate) fn on_a_host_with(prefix: &str, test: impl Future<Output = ()> + Send) {
    let host = NetNs::create().unwrap();
    let runtime = || tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime().block_on(async {
        let netlink = Netlink::inside(&host).unwrap();
        netlink.set_up(LOOPBACK).await.unwrap();
        let action = Action::Local { device: LOOPBACK.to_owned() };
        let destination = prefix.parse().unwrap();
        netlink.add_route(&Route { destination, action, source: None, table: MAIN, protocol: 4 }).await.unwrap();
    });
    host.run(|| runtime().block_on(test)).unwrap();
}

/// More memory than any test takes.
pub(crate) fn plenty() -> Arc<Memory> {
    Arc::new(Memory::new(u64::MAX))
}

const HOUR: Duration = Duration::from_secs(3_600);

/// An application: each connection it accepts comes out of the channel.
pub(crate) struct Application {
    pub(crate) port: u16,
    connections: mpsc::UnboundedReceiver<TcpStream>,
}

impl Application {
    pub(crate) async fn start() -> Self {
        Self::at("[::1]:0").await
    }

    pub(crate) async fn at(address: &str) -> Self {
        let listener = TcpListener::bind(address).await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let (give, connections) = mpsc::unbounded_channel();
        tokio::spawn(async move {
            while let Ok((tcp, _)) = listener.accept().await {
                if give.send(tcp).is_err() {
                    return;
                }
            }
        });
        Self { port, connections }
    }

    pub(crate) async fn accept(&mut self) -> TcpStream {
        within(self.connections.recv()).await.unwrap()
    }

    /// Nothing was ever connected to it.
    pub(crate) fn is_untouched(&mut self) -> bool {
        self.connections.is_empty()
    }
}

/// A caller that does by hand what a sidecar does, and what it would never do.
pub(crate) struct Caller<'a> {
    pub(crate) authority: &'a Authority,
    pub(crate) server_name: &'a str,
    pub(crate) header: ProxyHeader<'a>,
}

impl<'a> Caller<'a> {
    /// One that would be let in with this token.
    pub(crate) fn with(authority: &'a Authority, token: &'a [u8]) -> Self {
        let header = ProxyHeader {
            source: "[::1]:40000".parse().unwrap(),
            destination: DESTINATION.parse().unwrap(),
            authority: Some(name(SERVICE)),
            token: Some(TokenOctets(token)),
            token_reference: None,
            generation: Some(3),
        };
        Self { authority, server_name: SERVICE, header }
    }

    pub(crate) async fn connect(&self, to: &Running) -> io::Result<ClientStream> {
        let mut octets = Vec::new();
        self.header.encode(&mut octets).unwrap();
        self.connect_sending(to, &octets).await
    }

    /// Connects and sends these octets in place of a header.
    pub(crate) async fn connect_sending(&self, to: &Running, octets: &[u8]) -> io::Result<ClientStream> {
        self.speaking(PP2, to, octets).await
    }

    /// Shakes hands for this protocol, and sends these octets.
    pub(crate) async fn speaking(
        &self,
        protocol: &'static str,
        to: &Running,
        octets: &[u8],
    ) -> io::Result<ClientStream> {
        let tls = self.authority.client();
        let connected = tls.connect(to.connect().await, &name(self.server_name), protocol).await;
        let mut stream = connected.map_err(io::Error::other)?;
        stream.write_all(octets).await?;
        stream.flush().await?;
        Ok(stream)
    }

    /// Makes a tunnel, and opens a stream in it.
    pub(crate) async fn tunnel(&self, to: &Running) -> io::Result<HandTunnel> {
        let mut tunnel = Tunnel::new(self.speaking(TUNNEL, to, b"").await?, ByHand::default());
        self.open(&mut tunnel).await?;
        Ok(tunnel)
    }

    /// Opens a stream.
    pub(crate) async fn open(&self, tunnel: &mut HandTunnel) -> io::Result<()> {
        let mut octets = Vec::new();
        self.header.encode(&mut octets).unwrap();
        tunnel.open(octets, false);
        tunnel.flush().await
    }
}

/// A caller's end of a tunnel in a test's own hand.
pub(crate) type HandTunnel = Tunnel<ClientStream, ByHand>;

/// Renews with the token that is put here.
#[derive(Default)]
pub(crate) struct ByHand {
    pub(crate) renewal: Option<Vec<u8>>,
    pub(crate) renewed: Vec<Vec<u8>>,
}

impl Party for ByHand {
    fn renewed(&mut self) -> Option<Vec<u8>> {
        self.renewal.take()
    }

    fn renew(&mut self, token: &[u8]) -> Result<(), &'static str> {
        self.renewed.push(token.to_vec());
        Ok(())
    }
}

/// The connection ends without a byte and without an orderly end.
pub(crate) async fn ends_by_reset(mut stream: impl tokio::io::AsyncRead + Unpin) {
    let mut octets = Vec::new();
    let ended = within(stream.read_to_end(&mut octets)).await;
    assert_eq!(octets, b"", "the peer said something");
    assert_eq!(ended.map_err(|error| error.kind()), Err(io::ErrorKind::ConnectionReset));
}

/// Says something and hears it at the other end.
pub(crate) async fn hears(
    from: &mut (impl tokio::io::AsyncWrite + Unpin),
    at: &mut (impl tokio::io::AsyncRead + Unpin),
    text: &str,
) {
    from.write_all(text.as_bytes()).await.unwrap();
    from.flush().await.unwrap();
    let mut heard = vec![0; text.len()];
    within(at.read_exact(&mut heard)).await.unwrap();
    assert_eq!(heard, text.as_bytes());
}

/// Nothing in these tests takes this long unless it hangs.
pub(crate) async fn within<T>(doing: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(20), doing).await.expect("it hangs")
}
