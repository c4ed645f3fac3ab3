//! Datagrams in batches: recvmmsg(2), sendmmsg(2), and the address a datagram was sent to (`IP_PKTINFO`,
//! `IPV6_PKTINFO`).
//!
//! A [`Batch`] owns everything the kernel reads and writes: datagrams, peers' addresses, control messages. The arrays
//! live outside of Rust's references for as long as the batch lives, are only reached through pointers made once,
//! and never move; that is what makes the stored `msghdr`s stay true.

use std::io;
use std::mem;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6};
use std::os::fd::{AsRawFd, BorrowedFd};
use std::ptr::NonNull;

use libc::{
    c_int, c_void, cmsghdr, in_pktinfo, in6_pktinfo, iovec, mmsghdr, sockaddr_in, sockaddr_in6, sockaddr_storage,
};

/// What the C library counts control octets in.
#[cfg(target_env = "musl")]
type ControlOctets = libc::socklen_t;
/// What the C library counts control octets in.
#[cfg(not(target_env = "musl"))]
type ControlOctets = libc::size_t;

/// Room for control messages: the larger of the two kinds of pktinfo takes 40 octets.
#[derive(Clone, Copy)]
#[repr(C, align(8))]
struct Control([u8; 64]);

const ROOM_FOR_CONTROL: ControlOctets = size_of::<Control>() as ControlOctets;

/// An array reached through a pointer alone, freed at the end.
struct Region<T> {
    first: NonNull<T>,
    len: usize,
}

impl<T: Clone> Region<T> {
    fn new(value: T, len: usize) -> Self {
        let array = Box::leak(vec![value; len].into_boxed_slice());
        Self { first: NonNull::from(array).cast(), len }
    }
}

impl<T> Region<T> {
    /// The first of so many elements, all of which are there.
    #[inline]
    fn run(&self, first: usize, count: usize) -> *mut T {
        assert!(count <= self.len && first <= self.len - count, "{count} from {first} on of {}", self.len);
        // SAFETY: the element is inside the array, or right behind it when none is meant, as just checked.
        unsafe { self.first.as_ptr().add(first) }
    }

    /// The element, which is there.
    #[inline]
    fn at(&self, index: usize) -> *mut T {
        assert!(index < self.len, "index {index} of {}", self.len);
        // SAFETY: the index is inside the array that `first` begins, as just checked.
        unsafe { self.first.as_ptr().add(index) }
    }
}

impl<T> Drop for Region<T> {
    fn drop(&mut self) {
        let array = std::ptr::slice_from_raw_parts_mut(self.first.as_ptr(), self.len);
        // SAFETY: the array was leaked from a box of this length in `new`, and nothing else frees it.
        drop(unsafe { Box::from_raw(array) });
    }
}

/// Datagrams received together, and the replies that leave together.
///
/// A reply is written over the datagram it answers: set its length with [`Batch::reply`], then [`Batch::send`].
pub(crate) struct Batch {
    /// Octets a slot has room for.
    room: usize,
    slots: usize,
    data: Region<u8>,
    peers: Region<sockaddr_storage>,
    controls: Region<Control>,
    /// Octets of a slot that may be received.
    receive: usize,
    /// Where received datagrams go, and where replies lie: one a slot.
    vectors: Region<iovec>,
    /// Of what was received, and then of the reply to it: one a slot.
    headers: Region<mmsghdr>,
    received_count: usize,
    /// The slots that hold a reply, by bits.
    replied: u64,
}

/// The most slots that a batch can have: the bits of [`Batch::replied`].
const MOST_SLOTS: usize = 64;

// SAFETY: a batch owns its arrays alone, and pointers into them stand only in those arrays.
unsafe impl Send for Batch {}

impl Batch {
    /// Room for `slots` datagrams of up to `room` octets, of which `receive` may be received.
    ///
    /// # Panics
    /// When one of them is 0, or `receive` exceeds `room`.
    pub(crate) fn new(slots: usize, room: usize, receive: usize) -> Self {
        assert!((1..=MOST_SLOTS).contains(&slots), "a batch has 1 to {MOST_SLOTS} slots");
        assert!(receive > 0 && receive <= room, "a batch has room for what it receives");
        // SAFETY: all of these are C structures of integers and pointers, for which zeros are a value.
        let (no_peer, no_iov, no_header) =
            unsafe { (mem::zeroed::<sockaddr_storage>(), mem::zeroed::<iovec>(), mem::zeroed::<mmsghdr>()) };
        let batch = Self {
            room,
            slots,
            receive,
            data: Region::new(0, slots * room),
            peers: Region::new(no_peer, slots),
            controls: Region::new(Control([0; 64]), slots),
            vectors: Region::new(no_iov, slots),
            headers: Region::new(no_header, slots),
            received_count: 0,
            replied: 0,
        };
        for slot in 0..slots {
            // SAFETY: `at` gives pointers to elements of live arrays that nobody else holds.
            unsafe {
                (*batch.vectors.at(slot)).iov_base = batch.data.run(slot * room, room).cast();
                let header = &mut (*batch.headers.at(slot)).msg_hdr;
                header.msg_name = batch.peers.at(slot).cast();
                header.msg_iov = batch.vectors.at(slot);
                header.msg_iovlen = 1;
                header.msg_control = batch.controls.at(slot).cast();
            }
            batch.reset(slot);
        }
        batch
    }

    /// Makes a slot ready to be received into again: kernel and reply overwrote the lengths.
    fn reset(&self, slot: usize) {
        // SAFETY: pointers to elements of live arrays that nobody else holds.
        unsafe {
            (*self.vectors.at(slot)).iov_len = self.receive;
            let header = &mut (*self.headers.at(slot)).msg_hdr;
            header.msg_namelen = size_of::<sockaddr_storage>() as libc::socklen_t;
            header.msg_controllen = ROOM_FOR_CONTROL;
            header.msg_flags = 0;
        }
    }

    /// Waits for a datagram and takes what has come by then; gives how many. Replies not sent are forgotten.
    ///
    /// # Errors
    /// recvmmsg(2); `Interrupted` is for the caller to try again.
    pub(crate) fn receive(&mut self, socket: BorrowedFd<'_>) -> io::Result<usize> {
        for slot in 0..self.received_count {
            self.reset(slot);
        }
        (self.received_count, self.replied) = (0, 0);
        // SAFETY: `headers` has `slots` headers, and every pointer in them leads to an array of this batch that is
        // at least as long as the header says. The time-out is none.
        let count = unsafe {
            libc::recvmmsg(
                socket.as_raw_fd(),
                self.headers.at(0),
                self.slots as u32,
                libc::MSG_WAITFORONE as _,
                std::ptr::null_mut(),
            )
        };
        self.received_count = usize::try_from(count).map_err(|_| io::Error::last_os_error())?;
        Ok(self.received_count)
    }

    /// The whole room of a slot, and how many of its octets were received.
    ///
    /// # Panics
    /// When there is no such slot.
    pub(crate) fn datagram(&mut self, slot: usize) -> (&mut [u8], usize) {
        let length = self.received_length(slot);
        // SAFETY: the slot's room lies inside `data`, which holds initialised octets, and `&mut self` keeps others out.
        let room = unsafe { std::slice::from_raw_parts_mut(self.data.run(slot * self.room, self.room), self.room) };
        (room, length)
    }

    /// What was received in a slot.
    ///
    /// # Panics
    /// When there is no such slot.
    pub(crate) fn request(&self, slot: usize) -> &[u8] {
        let length = self.received_length(slot);
        // SAFETY: the octets lie inside `data`, are initialised, and nobody changes them while `self` is borrowed.
        unsafe { std::slice::from_raw_parts(self.data.run(slot * self.room, length), length) }
    }

    /// Whose datagram it is and where it was sent to, for replying to it later from another batch.
    ///
    /// # Panics
    /// When the slot was not received.
    pub(crate) fn origin(&self, slot: usize) -> Origin {
        assert!(slot < self.received_count, "slot {slot} of {} received", self.received_count);
        // SAFETY: pointers to elements of live arrays, which hold plain values.
        unsafe {
            let header = &(*self.headers.at(slot)).msg_hdr;
            Origin {
                peer: *self.peers.at(slot),
                peer_octets: header.msg_namelen,
                control: *self.controls.at(slot),
                control_octets: header.msg_controllen.min(ROOM_FOR_CONTROL),
            }
        }
    }

    /// Makes the slots hold, one after the other, datagrams that another batch received; there are as many as slots at
    /// most. Their octets are for the caller to write. Replies not sent are forgotten.
    ///
    /// # Panics
    /// When there are more than slots.
    pub(crate) fn adopt<'o>(&mut self, origins: impl ExactSizeIterator<Item = &'o Origin>) {
        assert!(origins.len() <= self.slots, "{} datagrams for {} slots", origins.len(), self.slots);
        (self.received_count, self.replied) = (origins.len(), 0);
        for (slot, origin) in origins.enumerate() {
            // SAFETY: pointers to elements of live arrays that nobody else holds; the lengths are those that the
            // kernel gave for these octets, and no longer than the elements.
            unsafe {
                *self.peers.at(slot) = origin.peer;
                *self.controls.at(slot) = origin.control;
                let header = &mut (*self.headers.at(slot)).msg_hdr;
                header.msg_namelen = origin.peer_octets;
                header.msg_controllen = origin.control_octets;
            }
        }
    }

    fn received_length(&self, slot: usize) -> usize {
        // SAFETY: a pointer to an element of a live array; the kernel has written it, or it is zero.
        let length = unsafe { (*self.headers.at(slot)).msg_len };
        (length as usize).min(self.room)
    }

    /// Whose datagram it is; none for a family that no UDP socket of ours has.
    pub(crate) fn peer(&self, slot: usize) -> Option<SocketAddr> {
        let storage: *const sockaddr_storage = self.peers.at(slot);
        // SAFETY: `sockaddr_storage` is large enough and aligned for each family's structure, all of whose octets
        // are initialised and any of whose values is valid.
        unsafe {
            match c_int::from((*storage).ss_family) {
                libc::AF_INET => {
                    let addr = &*storage.cast::<sockaddr_in>();
                    let ip = Ipv4Addr::from(u32::from_be(addr.sin_addr.s_addr));
                    Some(SocketAddrV4::new(ip, u16::from_be(addr.sin_port)).into())
                }
                libc::AF_INET6 => {
                    let addr = &*storage.cast::<sockaddr_in6>();
                    let ip = Ipv6Addr::from(addr.sin6_addr.s6_addr);
                    let port = u16::from_be(addr.sin6_port);
                    Some(SocketAddrV6::new(ip, port, addr.sin6_flowinfo, addr.sin6_scope_id).into())
                }
                _ => None,
            }
        }
    }

    /// The first `length` octets of the slot's room are a reply to its datagram's sender, from the address it sent to. What
    /// was received is forgotten.
    ///
    /// # Panics
    /// When the slot was not received, or has less room.
    pub(crate) fn reply(&mut self, slot: usize, length: usize) {
        assert!(slot < self.received_count && length <= self.room, "a reply fits in a received slot");
        // SAFETY: pointers to elements of live arrays that nobody else holds; the control octets were written by the
        // kernel up to `msg_controllen`.
        unsafe {
            (*self.vectors.at(slot)).iov_len = length;
            let header = &mut (*self.headers.at(slot)).msg_hdr;
            if header.msg_controllen > 0 {
                header.msg_controllen = answer_from(header);
            }
        }
        self.replied |= 1 << slot;
    }

    /// Sends all replies; gives how many the kernel did not take.
    pub(crate) fn send(&mut self, socket: BorrowedFd<'_>) -> usize {
        let mut failed = 0;
        while self.replied != 0 {
            // Nearly always all slots: those that stand behind one another leave together.
            let first = self.replied.trailing_zeros();
            let count = (self.replied >> first).trailing_ones();
            // SAFETY: these headers are inside the array, were made ready by `reply`, and their pointers lead into this
            // batch.
            let sent = unsafe {
                libc::sendmmsg(socket.as_raw_fd(), self.headers.run(first as usize, count as usize), count, 0)
            };
            let done = match u32::try_from(sent) {
                Ok(sent) if sent > 0 => sent.min(count),
                _ if io::Error::last_os_error().kind() == io::ErrorKind::Interrupted => continue,
                // The first one failed: a peer that cannot be reached must not hold up the others.
                _ => {
                    failed += 1;
                    1
                }
            };
            self.replied &= u64::MAX.checked_shl(first + done).unwrap_or(0);
        }
        failed
    }
}

/// Whose datagram it was and where it was sent to.
#[derive(Clone, Copy)]
pub(crate) struct Origin {
    peer: sockaddr_storage,
    peer_octets: libc::socklen_t,
    control: Control,
    control_octets: ControlOctets,
}

/// Turns the control message that says where a datagram came in into the one that says where its reply goes out: from
/// the same address, by whatever interface the route names. Gives its length; 0 where the kernel had better choose.
///
/// # Safety
/// `header`'s control pointer and length describe initialised octets that nobody else uses.
unsafe fn answer_from(header: &libc::msghdr) -> ControlOctets {
    // SAFETY: the caller vouches for the octets; CMSG_FIRSTHDR checks that there is room for a header, and the length
    // of each message is checked before its data is touched. The data is moved unaligned.
    unsafe {
        let message: *mut cmsghdr = libc::CMSG_FIRSTHDR(header);
        if message.is_null() {
            return 0;
        }
        let data: *mut c_void = libc::CMSG_DATA(message).cast();
        let holds = |octets: usize| (*message).cmsg_len >= libc::CMSG_LEN(octets as u32) as ControlOctets;
        match ((*message).cmsg_level, (*message).cmsg_type) {
            (libc::IPPROTO_IPV6, libc::IPV6_PKTINFO) if holds(size_of::<in6_pktinfo>()) => {
                let mut info = data.cast::<in6_pktinfo>().read_unaligned();
                let addr = Ipv6Addr::from(info.ipi6_addr.s6_addr);
                if addr.is_multicast() {
                    return 0;
                }
                if !addr.is_unicast_link_local() {
                    info.ipi6_ifindex = 0;
                }
                data.cast::<in6_pktinfo>().write_unaligned(info);
                libc::CMSG_SPACE(size_of::<in6_pktinfo>() as u32) as ControlOctets
            }
            (libc::IPPROTO_IP, libc::IP_PKTINFO) if holds(size_of::<in_pktinfo>()) => {
                let mut info = data.cast::<in_pktinfo>().read_unaligned();
                info.ipi_ifindex = 0;
                data.cast::<in_pktinfo>().write_unaligned(info);
                libc::CMSG_SPACE(size_of::<in_pktinfo>() as u32) as ControlOctets
            }
            _ => 0,
        }
    }
}

/// Asks the kernel to say with each datagram which address it was sent to.
///
/// # Errors
/// setsockopt(2).
pub(crate) fn report_destination(socket: BorrowedFd<'_>, ipv6: bool) -> io::Result<()> {
    let (level, option) =
        if ipv6 { (libc::IPPROTO_IPV6, libc::IPV6_RECVPKTINFO) } else { (libc::IPPROTO_IP, libc::IP_PKTINFO) };
    let on: c_int = 1;
    // SAFETY: the value is an integer that outlives the call, and its size is given.
    let outcome = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            level,
            option,
            (&raw const on).cast(),
            size_of::<c_int>() as libc::socklen_t,
        )
    };
    if outcome == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}
