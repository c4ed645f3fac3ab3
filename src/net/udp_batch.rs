//! UDP sockets that take and give datagrams in batches, and reply from the address that was asked.
//!
//! Several sockets may share one address (`SO_REUSEPORT`): the kernel spreads peers over them, one for each thread.

use std::fmt;
use std::io;
use std::net::{Shutdown, SocketAddr};
use std::os::fd::AsFd;

use socket2::{Domain, Protocol, Socket, Type};

use super::sys::mmsg;

/// What the kernel may hold for a thread that is busy, in octets; it cuts this to `net.core.{r,w}mem_max`.
const BUFFER: usize = 4 << 20;

/// A socket of a group that shares one address. Blocking.
#[derive(Debug)]
pub struct Shared {
    socket: Socket,
    addr: SocketAddr,
}

/// Whose datagram it was and where it was sent to: what a reply needs that is not given at once.
#[derive(Clone)]
pub struct Origin(mmsg::Origin);

impl fmt::Debug for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Origin(..)")
    }
}

/// Datagrams received together, and the replies that leave together.
pub struct Batch(mmsg::Batch);

/// `count` sockets at `addr`, at least one. Port 0 takes a free port, the same for all. `[::]` takes IPv4 as well.
///
/// A socket at a wildcard replies from whatever address was asked, also one that is only routed here (AnyIP).
///
/// # Errors
/// Whatever socket(2), setsockopt(2) or bind(2) refuses; `AddrInUse` also when the other socket would share.
pub fn group(addr: SocketAddr, count: usize) -> io::Result<Vec<Shared>> {
    // A process of the same user could join a shared port and take a part of its datagrams: found out by asking for
    // the port alone first.
    let alone = made(addr)?;
    alone.bind(&addr.into())?;
    let addr = bound_to(&alone)?;
    drop(alone);
    (0..count.max(1)).map(|_| Shared::bound(addr, count > 1)).collect()
}

fn made(addr: SocketAddr) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(addr), Type::DGRAM, Some(Protocol::UDP))?;
    if addr.is_ipv6() {
        socket.set_only_v6(!addr.ip().is_unspecified())?;
    }
    Ok(socket)
}

fn bound_to(socket: &Socket) -> io::Result<SocketAddr> {
    socket.local_addr()?.as_socket().ok_or_else(|| io::Error::from(io::ErrorKind::AddrNotAvailable))
}

impl Shared {
    fn bound(addr: SocketAddr, shared: bool) -> io::Result<Self> {
        let socket = made(addr)?;
        socket.set_reuse_port(shared)?;
        socket.set_recv_buffer_size(BUFFER)?;
        socket.set_send_buffer_size(BUFFER)?;
        if addr.ip().is_unspecified() {
            mmsg::report_destination(socket.as_fd(), addr.is_ipv6())?;
            if addr.is_ipv6() {
                socket.set_freebind_v6(true)?;
            }
        }
        socket.bind(&addr.into())?;
        Ok(Self { addr: bound_to(&socket)?, socket })
    }

    /// The address it is bound to.
    #[must_use]
    pub fn local_addr(&self) -> SocketAddr {
        self.addr
    }

    /// Another handle of the same socket, to stop it with.
    ///
    /// # Errors
    /// dup(2).
    pub fn try_clone(&self) -> io::Result<Self> {
        Ok(Self { socket: self.socket.try_clone()?, addr: self.addr })
    }

    /// Ends every wait for a datagram at this socket, now and later: [`Batch::receive`] gives empty datagrams or none.
    pub fn stop(&self) {
        // ENOTCONN is what Linux says, but only after it has woken the waiting.
        let _ = self.socket.shutdown(Shutdown::Read);
    }
}

impl Batch {
    /// Room for `slots` datagrams of up to `room` octets, of which `receive` may be received.
    ///
    /// # Panics
    /// When one of them is 0, or `receive` exceeds `room`.
    #[must_use]
    pub fn new(slots: usize, room: usize, receive: usize) -> Self {
        Self(mmsg::Batch::new(slots, room, receive))
    }

    /// Waits for a datagram and takes what has come by then; gives how many. A longer datagram is cut.
    ///
    /// # Errors
    /// recvmmsg(2); `Interrupted` is for the caller to try again.
    pub fn receive(&mut self, socket: &Shared) -> io::Result<usize> {
        self.0.receive(socket.socket.as_fd())
    }

    /// The whole room of a slot, and how many of its octets were received.
    ///
    /// # Panics
    /// When there is no such slot.
    pub fn datagram(&mut self, slot: usize) -> (&mut [u8], usize) {
        self.0.datagram(slot)
    }

    /// What was received in a slot.
    ///
    /// # Panics
    /// When there is no such slot.
    #[must_use]
    pub fn request(&self, slot: usize) -> &[u8] {
        self.0.request(slot)
    }

    /// Whose datagram it is; none for one that no UDP socket of ours receives.
    #[must_use]
    pub fn peer(&self, slot: usize) -> Option<SocketAddr> {
        self.0.peer(slot)
    }

    /// Whose datagram it is and where it was sent to, for [`Batch::reply_to`] of another batch.
    ///
    /// # Panics
    /// When the slot was not received.
    #[must_use]
    pub fn origin(&self, slot: usize) -> Origin {
        Origin(self.0.origin(slot))
    }

    /// Sends each reply to the datagram it is for, from the address that was asked; gives how many the kernel did not
    /// take. Whatever this batch had received is forgotten. A reply longer than a slot's room is not sent.
    pub fn reply_to(&mut self, socket: &Shared, slots: usize, replies: &[(Origin, Vec<u8>)]) -> usize {
        let mut unsent = 0;
        for some in replies.chunks(slots) {
            self.0.adopt(some.iter().map(|(origin, _)| &origin.0));
            for (slot, (_, octets)) in some.iter().enumerate() {
                match self.0.datagram(slot).0.get_mut(..octets.len()) {
                    Some(room) => {
                        room.copy_from_slice(octets);
                        self.0.reply(slot, octets.len());
                    }
                    None => unsent += 1,
                }
            }
            unsent += self.send(socket);
        }
        unsent
    }

    /// The first `length` octets of the slot's room are a reply to its datagram's sender.
    ///
    /// # Panics
    /// When the slot was not received, is answered a second time, or has less room.
    pub fn reply(&mut self, slot: usize, length: usize) {
        self.0.reply(slot, length);
    }

    /// Sends all replies; gives how many the kernel did not take.
    pub fn send(&mut self, socket: &Shared) -> usize {
        self.0.send(socket.socket.as_fd())
    }
}

impl fmt::Debug for Batch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Batch(..)")
    }
}

#[cfg(test)]
mod tests {
    use std::net::UdpSocket;

    use super::*;

    /// Sends "hello" to `to` from a fresh socket and gives what the reply said, and from where.
    fn asked(server: Shared, to: SocketAddr) -> (Vec<u8>, SocketAddr) {
        let client = UdpSocket::bind((if to.is_ipv6() { "::" } else { "0.0.0.0" }, 0)).unwrap();
        client.set_read_timeout(Some(std::time::Duration::from_secs(5))).unwrap();
        client.send_to(b"hello", to).unwrap();
        let mut batch = Batch::new(4, 64, 32);
        assert_eq!(batch.receive(&server).unwrap(), 1);
        assert_eq!(batch.peer(0).unwrap().port(), client.local_addr().unwrap().port());
        let (room, length) = batch.datagram(0);
        room[length..length + 6].copy_from_slice(b" again");
        batch.reply(0, length + 6);
        assert_eq!(batch.send(&server), 0);
        let mut reply = [0; 64];
        let (length, from) = client.recv_from(&mut reply).unwrap();
        (reply[..length].to_vec(), from)
    }

    #[test]
    fn a_reply_leaves_from_the_address_that_was_asked() {
        for (bind, ask) in
            [("[::]:0", "[::1]"), ("[::]:0", "127.0.0.1"), ("[::]:0", "127.7.7.7"), ("0.0.0.0:0", "127.7.7.7")]
        {
            let server = group(bind.parse().unwrap(), 1).unwrap().remove(0);
            let to: SocketAddr = format!("{ask}:{}", server.local_addr().port()).parse().unwrap();
            assert_eq!(asked(server, to), (b"hello again".to_vec(), to), "{bind} asked at {to}");
        }
    }

    #[test]
    fn a_reply_from_another_batch_leaves_from_the_address_asked_as_well() {
        let server = group("[::]:0".parse().unwrap(), 1).unwrap().remove(0);
        let to: SocketAddr = format!("127.7.7.7:{}", server.local_addr().port()).parse().unwrap();
        let clients: Vec<UdpSocket> = (0..3).map(|_| UdpSocket::bind("127.0.0.1:0").unwrap()).collect();
        let mut batch = Batch::new(8, 64, 32);
        let mut replies = Vec::new();
        for client in &clients {
            client.set_read_timeout(Some(std::time::Duration::from_secs(5))).unwrap();
            client.send_to(b"hello", to).unwrap();
            for slot in 0..batch.receive(&server).unwrap() {
                replies.push((batch.origin(slot), vec![replies.len() as u8; 9]));
            }
        }
        let too_long = (replies[0].0.clone(), vec![0; 17]);
        replies.push(too_long);
        assert_eq!(Batch::new(2, 16, 1).reply_to(&server, 2, &replies), 1);
        for (number, client) in clients.iter().enumerate() {
            let mut reply = [0; 64];
            let (length, from) = client.recv_from(&mut reply).unwrap();
            assert_eq!((&reply[..length], from), (&[number as u8; 9][..], to));
        }
    }

    #[test]
    fn a_group_shares_a_port_that_nobody_else_can_join() {
        let sockets = group("127.0.0.1:0".parse().unwrap(), 3).unwrap();
        let addr = sockets[0].local_addr();
        assert!(addr.port() > 0 && sockets.iter().all(|socket| socket.local_addr() == addr));
        assert_eq!(group(addr, 1).unwrap_err().kind(), io::ErrorKind::AddrInUse);
    }

    #[test]
    fn a_stopped_socket_wakes_who_waits_for_it() {
        let server = group("127.0.0.1:0".parse().unwrap(), 1).unwrap().remove(0);
        let handle = server.try_clone().unwrap();
        let waiting = std::thread::spawn(move || {
            let mut batch = Batch::new(1, 16, 16);
            batch.receive(&server).map(|_| batch.datagram(0).1)
        });
        handle.stop();
        assert_eq!(waiting.join().unwrap().unwrap_or(0), 0);
    }

    #[test]
    fn a_datagram_longer_than_the_room_is_cut_and_the_next_is_whole() {
        let server = group("127.0.0.1:0".parse().unwrap(), 1).unwrap().remove(0);
        let client = UdpSocket::bind("127.0.0.1:0").unwrap();
        let mut batch = Batch::new(2, 16, 8);
        for (sent, seen) in [(vec![1; 12], vec![1; 8]), (vec![2; 8], vec![2; 8]), (vec![3; 3], vec![3; 3])] {
            client.send_to(&sent, server.local_addr()).unwrap();
            assert_eq!(batch.receive(&server).unwrap(), 1);
            let (room, length) = batch.datagram(0);
            assert_eq!(room[..length], seen);
        }
    }
}
