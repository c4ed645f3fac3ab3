//! Where a connection's octets are: the thread's buffers while something is done with them, its own while they wait.
//!
//! A buffer of the thread is never held while waiting, so one of each kind serves all connections.

use std::cell::Cell;

/// Octets that wait, from `taken` on.
#[derive(Default)]
pub(super) struct Kept {
    pub(super) octets: Vec<u8>,
    taken: usize,
}

impl Kept {
    pub(super) fn waiting(&self) -> &[u8] {
        &self.octets[self.taken..]
    }

    pub(super) fn is_empty(&self) -> bool {
        self.taken == self.octets.len()
    }

    pub(super) fn take(&mut self, octets: usize) {
        self.taken += octets;
        if self.is_empty() {
            *self = Self::default();
        }
    }
}

pub(super) type Spare = Cell<Option<Box<[u8]>>>;

thread_local! {
    pub(super) static INCOMING: Spare = const { Cell::new(None) };
    pub(super) static OUTGOING: Spare = const { Cell::new(None) };
    pub(super) static GATHERED: Spare = const { Cell::new(None) };
}

/// One of the thread's buffers, for as long as one call takes; never held while waiting.
pub(super) struct Shared {
    pub(super) octets: Box<[u8]>,
    home: &'static std::thread::LocalKey<Spare>,
}

impl Shared {
    pub(super) fn borrow(home: &'static std::thread::LocalKey<Spare>, octets: usize) -> Self {
        Self { octets: home.take().unwrap_or_else(|| vec![0; octets].into()), home }
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        self.home.set(Some(std::mem::take(&mut self.octets)));
    }
}
