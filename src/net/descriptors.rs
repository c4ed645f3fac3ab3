//! Descriptors given to another process over a unix socket (unix(7), SCM_RIGHTS).
//!
//! They travel with one octet, which says how many there are; whatever else is said goes before or after it.

use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{BorrowedFd, OwnedFd};

use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage, SendFlags,
    recvmsg, sendmsg,
};
use tokio::io::Interest;
use tokio::net::UnixStream;

/// How many descriptors go at once.
pub const MOST: usize = 32;

/// Gives descriptors away; ours stay open.
///
/// # Errors
/// More than [`MOST`]; whatever sendmsg(2) refuses.
pub async fn give(stream: &UnixStream, descriptors: &[BorrowedFd<'_>]) -> io::Result<()> {
    let count = u8::try_from(descriptors.len()).ok().filter(|count| usize::from(*count) <= MOST);
    let count = [count.ok_or(io::ErrorKind::InvalidInput)?];
    let send = || {
        let mut room = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MOST))];
        let mut control = SendAncillaryBuffer::new(&mut room);
        if !descriptors.is_empty() {
            control.push(SendAncillaryMessage::ScmRights(descriptors));
        }
        Ok(sendmsg(stream, &[IoSlice::new(&count)], &mut control, SendFlags::empty())?)
    };
    stream.async_io(Interest::WRITABLE, send).await.map(drop)
}

/// Takes what [`give`] gave, in its order; none of it passes to programs that this process starts.
///
/// # Errors
/// A peer that gave fewer than it said, or hung up; whatever recvmsg(2) refuses, such as too many open files.
pub async fn receive(stream: &UnixStream) -> io::Result<Vec<OwnedFd>> {
    let receive = || {
        let mut room = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MOST))];
        let mut control = RecvAncillaryBuffer::new(&mut room);
        let mut count = [0];
        let received = recvmsg(stream, &mut [IoSliceMut::new(&mut count)], &mut control, RecvFlags::CMSG_CLOEXEC)?;
        let mut descriptors = Vec::new();
        for message in control.drain() {
            if let RecvAncillaryMessage::ScmRights(rights) = message {
                descriptors.extend(rights);
            }
        }
        if received.bytes != 1 || descriptors.len() != usize::from(count[0]) {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        Ok(descriptors)
    };
    stream.async_io(Interest::READABLE, receive).await
}

#[cfg(test)]
mod tests {
    use std::io::{Read as _, Write as _};
    use std::os::fd::AsFd as _;

    use super::*;

    #[tokio::test]
    async fn what_is_given_is_the_same_open_file() {
        let (giver, taker) = UnixStream::pair().unwrap();
        let (mut reads, writes) = io::pipe().unwrap();
        give(&giver, &[writes.as_fd()]).await.unwrap();
        drop(writes);
        let taken = receive(&taker).await.unwrap();
        let [taken] = <[OwnedFd; 1]>::try_from(taken).unwrap();
        io::PipeWriter::from(taken).write_all(b"here").unwrap();
        let mut read = String::new();
        reads.read_to_string(&mut read).unwrap();
        assert_eq!(read, "here");
    }

    #[tokio::test]
    async fn nothing_can_be_given_and_a_peer_that_hung_up_gave_nothing() {
        let (giver, taker) = UnixStream::pair().unwrap();
        give(&giver, &[]).await.unwrap();
        assert!(receive(&taker).await.unwrap().is_empty());
        drop(giver);
        assert_eq!(receive(&taker).await.unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
    }

    #[tokio::test]
    async fn as_many_as_fit_are_given_and_not_one_more() {
        let (giver, taker) = UnixStream::pair().unwrap();
        let one = giver.as_fd();
        give(&giver, &[one; MOST]).await.unwrap();
        assert_eq!(receive(&taker).await.unwrap().len(), MOST);
        assert_eq!(give(&giver, &[one; MOST + 1]).await.unwrap_err().kind(), io::ErrorKind::InvalidInput);
    }
}
