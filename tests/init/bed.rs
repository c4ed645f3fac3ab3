//! A pod and the world outside it, each a network namespace of its own, with listeners that say who they are.

use std::io::{self, Read};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream, UdpSocket};
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use funicular::net::listen;
use funicular::net::namespace::NetNs;
use funicular::net::original_dst::{OriginalDstError, original_destination};
use funicular::net::routes::{Action, LOOPBACK, MAIN, Netlink, Route};
use socket2::{Domain, Protocol, Socket, Type};
use tokio::io::AsyncWriteExt;

/// Far longer than anything here takes, and short enough for a person to wait.
const PATIENCE: Duration = Duration::from_secs(5);

pub(crate) const POD4: &str = "10.0.0.2";
pub(crate) const POD6: &str = "2001:db8:1::2";
pub(crate) const OUTSIDE4: &str = "10.0.0.1";
pub(crate) const OUTSIDE6: &str = "2001:db8:1::1";
/// More of the world outside, beyond the pod's link.
pub(crate) const FAR: [&str; 6] =
    ["198.51.100.7", "2001:db8:f::7", "10.9.255.255", "10.10.0.0", "2001:db8:9:ffff::1", "2001:db8:a::1"];
/// The prefix of a service that the pod serves.
pub(crate) const SERVICE: &str = "2001:db8:5::/64";

/// Which families the pod has addresses of, and whether it has default routes.
#[derive(Clone, Copy)]
pub(crate) struct Shape {
    pub(crate) ipv4: bool,
    pub(crate) ipv6: bool,
    pub(crate) default_routes: bool,
}

pub(crate) const DUAL: Shape = Shape { ipv4: true, ipv6: true, default_routes: true };

pub(crate) struct Bed {
    pub(crate) pod: NetNs,
    pub(crate) outside: NetNs,
}

impl Bed {
    pub(crate) async fn new() -> Self {
        Self::shaped(DUAL).await
    }

    pub(crate) async fn shaped(shape: Shape) -> Self {
        let (pod, outside) = (NetNs::create().unwrap(), NetNs::create().unwrap());
        // Addresses that the kernel makes up come late, and would come between a look before and a look after.
        pod.set_sysctl("net.ipv6.conf.default.addr_gen_mode", "1").unwrap();
        let (inside, beyond) = (Netlink::inside(&pod).unwrap(), Netlink::inside(&outside).unwrap());
        // With different indexes at its ends the kernel notices at once that a cable is whole.
        beyond.add_veth("spare", "eraps", outside.fd()).await.unwrap();
        inside.add_veth("eth0", "pod", outside.fd()).await.unwrap();
        for (netlink, device) in [(&inside, "eth0"), (&beyond, "pod")] {
            netlink.set_up(LOOPBACK).await.unwrap();
            netlink.set_up(device).await.unwrap();
        }
        for (there, wanted, ours, theirs) in
            [(shape.ipv4, "0.0.0.0/0", POD4, OUTSIDE4), (shape.ipv6, "::/0", POD6, OUTSIDE6)]
        {
            let len = if wanted == "::/0" { 64 } else { 24 };
            beyond.add_address("pod", format!("{theirs}/{len}").parse().unwrap()).await.unwrap();
            if there {
                inside.add_address("eth0", format!("{ours}/{len}").parse().unwrap()).await.unwrap();
            }
            if there && shape.default_routes {
                inside.add_route(&via(wanted, theirs)).await.unwrap();
            }
        }
        for address in FAR {
            beyond.add_address(LOOPBACK, address.parse::<IpAddr>().unwrap().into()).await.unwrap();
        }
        inside.settled("eth0").await.unwrap();
        beyond.settled("pod").await.unwrap();
        beyond.settled(LOOPBACK).await.unwrap();
        if shape.ipv6 {
            beyond.add_route(&via(SERVICE, POD6)).await.unwrap();
        }
        Self { pod, outside }
    }

    /// Runs `funicular init` in the pod.
    pub(crate) fn init(&self, flags: &str) -> Output {
        let mut command = Command::new(env!("CARGO_BIN_EXE_funicular"));
        command.arg("init").args(flags.split_whitespace());
        run(&self.pod, &mut command, "")
    }

    /// Runs `funicular init` in the pod, which must succeed; gives what it printed.
    pub(crate) fn init_ok(&self, flags: &str) -> String {
        succeeded(&self.init(flags))
    }

    /// Everything that init may touch, as people's programs list it.
    pub(crate) fn snapshot(&self) -> String {
        let ask = "nft -a list ruleset; ip -4 rule; ip -6 rule; ip -4 route show table all; ip -6 route show table all";
        self.shell(ask, "")
    }

    /// Runs a shell script in the pod, which must succeed; gives what it printed.
    pub(crate) fn shell(&self, script: &str, input: &str) -> String {
        succeeded(&run(&self.pod, Command::new("sh").args(["-ec", script]), input))
    }

    /// The sidecar's listeners, an application's, and the world's.
    pub(crate) fn populate(&self) {
        let local = [IpAddr::V4(Ipv4Addr::LOCALHOST), IpAddr::V6(Ipv6Addr::LOCALHOST)];
        greet(&self.pod, any(15001), "outbound");
        greet(&self.pod, any(15006), "inbound");
        for at in local {
            greet(&self.pod, (at, 15053).into(), "stub");
            echo(&self.pod, (at, 15053).into(), "stub");
        }
        for port in [80, 15020, 9000, 9010, 9011] {
            greet(&self.pod, any(port), "app");
        }
        for port in [53, 80, 7999, 8000, 8010, 8011] {
            greet(&self.outside, any(port), "outside");
        }
        for at in [OUTSIDE4, OUTSIDE6] {
            echo(&self.outside, (at.parse::<IpAddr>().unwrap(), 53).into(), "outside");
        }
    }

    /// Who answers a connection of the pod.
    pub(crate) fn call(&self, to: &str) -> io::Result<String> {
        self.call_marked(to, None)
    }

    pub(crate) fn call_marked(&self, to: &str, mark: Option<u32>) -> io::Result<String> {
        self.pod.run(|| dial(to.parse().unwrap(), mark).map(|(said, _)| said)).unwrap()
    }

    /// Who answers a connection from outside.
    pub(crate) fn call_in(&self, to: &str) -> io::Result<String> {
        self.outside.run(|| dial(to.parse().unwrap(), None).map(|(said, _)| said)).unwrap()
    }

    /// Has a program of the pod answer datagrams to this port.
    pub(crate) fn app_echo(&self, port: u16) {
        for at in [POD4, POD6] {
            echo(&self.pod, (at.parse::<IpAddr>().unwrap(), port).into(), "app");
        }
    }

    /// Has the world outside answer datagrams there.
    pub(crate) fn outside_echo(&self, at: &str) {
        echo(&self.outside, at.parse().unwrap(), "outside");
    }

    /// Who answers a datagram from outside.
    pub(crate) fn send_in(&self, to: &str) -> io::Result<String> {
        self.outside.run(|| datagram(to.parse().unwrap(), None)).unwrap()
    }

    /// Sends a datagram from outside, and waits for nothing.
    pub(crate) fn send_in_blindly(&self, to: &str) {
        let to: SocketAddr = to.parse().unwrap();
        let from = if to.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
        self.outside.run(|| UdpSocket::bind(from).unwrap().send_to(b"?", to).unwrap()).unwrap();
    }

    /// Who answers a datagram of the pod.
    pub(crate) fn send(&self, to: &str, mark: Option<u32>) -> io::Result<String> {
        self.pod.run(|| datagram(to.parse().unwrap(), mark)).unwrap()
    }
}

/// A route in the main table, as an administrator writes it.
pub(crate) fn via(destination: &str, gateway: &str) -> Route {
    Route {
        destination: destination.parse().unwrap(),
        action: Action::Unicast { via: Some(gateway.parse().unwrap()), device: None },
        source: None,
        table: MAIN,
        protocol: 4,
    }
}

pub(crate) fn any(port: u16) -> SocketAddr {
    (Ipv6Addr::UNSPECIFIED, port).into()
}

pub(crate) fn succeeded(output: &Output) -> String {
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{said}\n{}", String::from_utf8_lossy(&output.stderr));
    said
}

pub(crate) fn run(namespace: &NetNs, command: &mut Command, input: &str) -> Output {
    let command = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = namespace.spawn(command, &[]).unwrap();
    io::Write::write_all(&mut child.stdin.take().unwrap(), input.as_bytes()).unwrap();
    child.wait_with_output().unwrap()
}

/// Connects, and reads what the listener says; gives the address it came from too.
pub(crate) fn dial(to: SocketAddr, mark: Option<u32>) -> io::Result<(String, SocketAddr)> {
    let socket = Socket::new(Domain::for_address(to), Type::STREAM, Some(Protocol::TCP))?;
    if let Some(mark) = mark {
        socket.set_mark(mark)?;
    }
    socket.connect_timeout(&to.into(), PATIENCE)?;
    let mut stream = TcpStream::from(socket);
    stream.set_read_timeout(Some(PATIENCE))?;
    let mut said = String::new();
    stream.read_to_string(&mut said)?;
    Ok((said, stream.local_addr()?))
}

/// Sends a datagram, and takes an answer from where it was sent alone.
fn datagram(to: SocketAddr, mark: Option<u32>) -> io::Result<String> {
    let socket = Socket::new(Domain::for_address(to), Type::DGRAM, Some(Protocol::UDP))?;
    if let Some(mark) = mark {
        socket.set_mark(mark)?;
    }
    let socket = UdpSocket::from(socket);
    socket.set_read_timeout(Some(PATIENCE))?;
    socket.connect(to)?;
    socket.send(b"who?")?;
    let mut said = [0; 64];
    let len = socket.recv(&mut said)?;
    Ok(String::from_utf8_lossy(&said[..len]).into_owned())
}

/// A listener in `namespace` that says `name` and where each connection was going.
fn greet(namespace: &NetNs, at: SocketAddr, name: &'static str) {
    let listener = inside(namespace, || listen::tcp(at));
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let said = match original_destination(&stream) {
                Ok(original) => format!("{name} {original}"),
                Err(OriginalDstError::NotRedirected { .. }) => name.to_owned(),
                Err(error @ OriginalDstError::Socket(_)) => error.to_string(),
            };
            // Whoever called may have gone already.
            let _ = stream.write_all(said.as_bytes()).await;
        }
    });
}

/// A UDP socket in `namespace` that answers every datagram with `name`.
fn echo(namespace: &NetNs, at: SocketAddr, name: &'static str) {
    let socket = inside(namespace, || listen::udp(at));
    tokio::spawn(async move {
        let mut asked = [0; 64];
        while let Ok((_, peer)) = socket.recv_from(&mut asked).await {
            let _ = socket.send_to(name.as_bytes(), peer).await;
        }
    });
}

fn inside<T: Send>(namespace: &NetNs, open: impl FnOnce() -> io::Result<T> + Send) -> T {
    let runtime = tokio::runtime::Handle::current();
    let opened = namespace.run(|| {
        let _runtime = runtime.enter();
        open()
    });
    opened.unwrap().unwrap()
}
