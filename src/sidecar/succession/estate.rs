//! The listening sockets of a sidecar, held a second time so that they can be given on.

use std::io;
use std::net::{SocketAddr, TcpListener, UdpSocket};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use serde::{Deserialize, Serialize};

/// Which sockets: those of a key of the configuration, for the address that it names.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub(super) struct Described {
    key: String,
    address: SocketAddr,
    /// How many there are, in the order in which they were put.
    count: usize,
}

/// Sockets by the key and the address of the configuration that they were bound for.
#[derive(Debug, Default)]
pub(in crate::sidecar) struct Estate(Vec<(Described, Vec<OwnedFd>)>);

impl Estate {
    /// Of what a predecessor said and gave; what is described and was not given is left out.
    pub(super) fn of(described: Vec<Described>, given: Vec<OwnedFd>) -> Self {
        let mut given = given.into_iter();
        let taken = described.into_iter().map(|one| {
            let sockets = given.by_ref().take(one.count).collect();
            (one, sockets)
        });
        Self(taken.filter(|(one, sockets): &(Described, Vec<OwnedFd>)| one.count == sockets.len()).collect())
    }

    /// Takes the sockets of a key out, if they were bound for this address: another one means new sockets.
    pub(in crate::sidecar) fn take(&mut self, key: &str, address: SocketAddr) -> Option<Vec<OwnedFd>> {
        let at = self.0.iter().position(|(one, _)| one.key == key && one.address == address)?;
        Some(self.0.swap_remove(at).1)
    }

    /// Holds these sockets as well.
    ///
    /// # Errors
    /// Too many open files.
    pub(in crate::sidecar) fn put<'s>(
        &mut self,
        key: &str,
        address: SocketAddr,
        sockets: impl IntoIterator<Item = BorrowedFd<'s>>,
    ) -> io::Result<()> {
        let sockets = sockets.into_iter().map(|socket| socket.try_clone_to_owned()).collect::<io::Result<Vec<_>>>()?;
        self.0.push((Described { key: key.to_owned(), address, count: sockets.len() }, sockets));
        Ok(())
    }

    pub(super) fn described(&self) -> Vec<Described> {
        self.0.iter().map(|(one, _)| one.clone()).collect()
    }

    pub(super) fn sockets(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        self.0.iter().flat_map(|(_, sockets)| sockets).map(AsFd::as_fd)
    }
}

/// A listener that was given.
///
/// # Errors
/// When the system does not let it wait without blocking.
///
/// # Panics
/// Outside a tokio runtime with I/O.
pub(in crate::sidecar) fn listener(socket: OwnedFd) -> io::Result<tokio::net::TcpListener> {
    let listener = TcpListener::from(socket);
    listener.set_nonblocking(true)?;
    tokio::net::TcpListener::from_std(listener)
}

/// A datagram socket that was given; otherwise as [`listener`].
pub(in crate::sidecar) fn datagrams(socket: OwnedFd) -> io::Result<tokio::net::UdpSocket> {
    let socket = UdpSocket::from(socket);
    socket.set_nonblocking(true)?;
    tokio::net::UdpSocket::from_std(socket)
}

#[cfg(test)]
mod tests {
    use super::*;

    const FREE: SocketAddr = SocketAddr::new(std::net::IpAddr::V6(std::net::Ipv6Addr::LOCALHOST), 0);

    fn estate() -> (Estate, SocketAddr) {
        let bound = TcpListener::bind(FREE).unwrap();
        let mut estate = Estate::default();
        estate.put("inbound.listen", FREE, [bound.as_fd()]).unwrap();
        (estate, bound.local_addr().unwrap())
    }

    #[tokio::test]
    async fn a_socket_is_taken_once_by_the_key_and_the_address_that_it_was_bound_for() {
        let (mut estate, at) = estate();
        assert!(estate.take("outbound.listen", FREE).is_none());
        assert!(estate.take("inbound.listen", at).is_none(), "another address than that of the configuration");
        let [socket] = <[OwnedFd; 1]>::try_from(estate.take("inbound.listen", FREE).unwrap()).unwrap();
        assert_eq!(listener(socket).unwrap().local_addr().unwrap(), at);
        assert!(estate.take("inbound.listen", FREE).is_none());
    }

    #[test]
    fn what_is_described_and_was_not_given_is_left_out() {
        let (estate, _) = estate();
        assert!(Estate::of(estate.described(), Vec::new()).0.is_empty());
    }
}
