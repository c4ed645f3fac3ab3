//! The half of the protocol that a connection plays: the library has a type for each, and no name for what they share.

use rustls::CommonState;
use rustls::client::{ClientConnectionData, UnbufferedClientConnection};
use rustls::server::{ServerConnectionData, UnbufferedServerConnection};
use rustls::unbuffered::UnbufferedStatus;

/// The client's or the server's half of the protocol.
pub trait Session: Unpin {
    /// What the library keeps for that half.
    type Data;

    /// Takes what has come; says what is to be done next.
    fn process<'c, 'i>(&'c mut self, incoming: &'i mut [u8]) -> UnbufferedStatus<'c, 'i, Self::Data>;

    /// What both halves have.
    fn common(&self) -> &CommonState;
}

macro_rules! half {
    ($connection:ty, $data:ty) => {
        impl Session for $connection {
            type Data = $data;

            fn process<'c, 'i>(&'c mut self, incoming: &'i mut [u8]) -> UnbufferedStatus<'c, 'i, Self::Data> {
                self.process_tls_records(incoming)
            }

            fn common(&self) -> &CommonState {
                self
            }
        }
    };
}

half!(UnbufferedClientConnection, ClientConnectionData);
half!(UnbufferedServerConnection, ServerConnectionData);
