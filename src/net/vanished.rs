//! Peers that vanish: without a FIN or a reset, a connection to a machine that lost its power is open for ever.
//!
//! The kernel asks a silent peer whether it is still there, and gives up on one that acknowledges nothing; the
//! connection then fails like any other that broke off.

use std::io;
use std::time::Duration;

use socket2::{SockRef, TcpKeepalive};

/// How long a connection may be silent before its peer is asked.
pub const SILENCE: Duration = Duration::from_secs(60);
/// How often it is asked then.
const ASK: Duration = Duration::from_secs(10);
/// How many questions stay without an answer before the connection is given up.
const QUESTIONS: u32 = 3;
/// How long what was sent may stay without an acknowledgement (TCP_USER_TIMEOUT, RFC 5482).
const UNACKNOWLEDGED: Duration = Duration::from_secs(60);

/// Has the kernel notice when the peer of a connection vanishes; on a listener, for all that it accepts.
///
/// # Errors
/// Whatever setsockopt(2) says.
pub fn notice<'s>(socket: impl Into<SockRef<'s>>) -> io::Result<()> {
    let socket = socket.into();
    let keepalive = TcpKeepalive::new().with_time(SILENCE).with_interval(ASK).with_retries(QUESTIONS);
    socket.set_tcp_keepalive(&keepalive)?;
    socket.set_tcp_user_timeout(Some(UNACKNOWLEDGED))
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::net::TcpStream;

    #[tokio::test]
    async fn what_a_listener_accepts_notices_as_the_listener_was_told_to() {
        let listener = crate::net::listen::tcp("[::1]:0".parse().unwrap()).unwrap();
        notice(&listener).unwrap();
        let _client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let (accepted, _) = listener.accept().await.unwrap();
        let accepted = SockRef::from(&accepted);
        assert!(accepted.keepalive().unwrap());
        assert_eq!(accepted.tcp_keepalive_time().unwrap(), SILENCE);
        assert_eq!(accepted.tcp_user_timeout().unwrap(), Some(UNACKNOWLEDGED));
    }
}
