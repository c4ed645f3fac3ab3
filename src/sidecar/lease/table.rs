//! What this pod has, for the data path: asked once for each connection, replaced whole when it changes.

use std::collections::HashMap;
use std::net::{Ipv6Addr, SocketAddrV6};
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use ipnet::Ipv6Net;
use parking_lot::Mutex;
use tokio::sync::watch;
use tokio::time::Instant;

use super::steps::Has;
use crate::config::slices::Lapsed;
use crate::model::registry::lease::Step;

/// How long it is remembered where slices went: routes far away may be older.
const REMEMBERED: Duration = Duration::from_secs(60);
/// How many of those are remembered.
const MOST_REMEMBERED: usize = 4096;

/// Whose a connection is, by its destination.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Standing {
    /// This pod's.
    Here,
    /// Another pod's, at this address if that is known.
    Elsewhere(Option<SocketAddrV6>),
    /// The lease was not renewed, and calls are to be refused then.
    Lapsed,
}

/// Slices of this pod's services, shared between who learns of them and who serves.
#[derive(Debug)]
pub struct Slices {
    table: ArcSwap<Table>,
    lapsed: Lapsed,
    open: Mutex<HashMap<Ipv6Addr, Open>>,
    changed: watch::Sender<u64>,
    /// Counts connections that end, for who waits until none is left.
    ended: watch::Sender<u64>,
}

/// Connections to one address.
#[derive(Clone, Copy, Debug, Default)]
struct Open {
    now: u32,
    /// Begun since the load was last told.
    begun: u32,
}

/// Which prefixes are whose. Each list is in order, and no two of its prefixes overlap.
#[derive(Clone, Debug, Default)]
struct Table {
    /// The spaces of which anything is known.
    spaces: Vec<Ipv6Net>,
    here: Vec<Ipv6Net>,
    elsewhere: Vec<(Ipv6Net, SocketAddrV6)>,
    /// Where slices went that were here: remembered until then.
    went: Vec<(Ipv6Net, SocketAddrV6, Instant)>,
    /// When the lease lapses; none before there is one.
    lapses: Option<Instant>,
}

/// One connection to a slice; dropping it says that it has ended.
#[derive(Debug)]
pub struct Guard {
    slices: Arc<Slices>,
    address: Ipv6Addr,
}

impl Slices {
    /// Nothing is known yet: until it is, whatever arrives is this pod's.
    #[must_use]
    pub fn new(lapsed: Lapsed) -> Self {
        Self {
            table: ArcSwap::default(),
            lapsed,
            open: Mutex::default(),
            changed: watch::Sender::new(0),
            ended: watch::Sender::new(0),
        }
    }

    /// Whose a connection to `destination` is.
    #[must_use]
    pub fn standing(&self, destination: Ipv6Addr) -> Standing {
        let table = self.table.load();
        if self.lapsed == Lapsed::Refuse && table.lapses.is_none_or(|lapses| lapses <= Instant::now()) {
            return Standing::Lapsed;
        }
        if around(&table.here, |prefix| *prefix, destination).is_some() || !table.knows(destination) {
            return Standing::Here;
        }
        let now = around(&table.elsewhere, |(prefix, _)| *prefix, destination).map(|&(_, to)| to);
        let went = || {
            let then = table.went.iter().rev().find(|(prefix, _, _)| prefix.contains(&destination));
            then.filter(|(_, _, until)| *until > Instant::now()).map(|&(_, to, _)| to)
        };
        Standing::Elsewhere(now.or_else(went))
    }

    /// Counts one connection to `destination` for as long as the guard lives.
    #[must_use]
    pub fn enter(self: &Arc<Self>, destination: Ipv6Addr) -> Guard {
        let mut open = self.open.lock();
        let of_one = open.entry(destination).or_default();
        of_one.now += 1;
        of_one.begun += 1;
        Guard { slices: Arc::clone(self), address: destination }
    }

    /// Waits until it is known what the pod has. Cancel safe.
    pub async fn known(&self) {
        // The sender lives as long as `self`, which is borrowed.
        let _ = self.changed.subscribe().wait_for(|version| *version > 0).await;
    }

    /// Waits until `destination` is another pod's. Cancel safe.
    pub async fn left(&self, destination: Ipv6Addr) {
        let mut changed = self.changed.subscribe();
        let away = |_: &u64| matches!(self.standing(destination), Standing::Elsewhere(_));
        // The sender lives as long as `self`, which is borrowed.
        let _ = changed.wait_for(away).await;
    }

    /// How many connections are open to some prefixes.
    pub(super) fn open_in(&self, prefixes: &[Ipv6Net]) -> u32 {
        let open = self.open.lock();
        let inside = |address: &Ipv6Addr| prefixes.iter().any(|prefix| prefix.contains(address));
        open.iter().filter(|(address, _)| inside(address)).map(|(_, open)| open.now).sum()
    }

    /// A view of connections that end.
    pub(super) fn endings(&self) -> watch::Receiver<u64> {
        self.ended.subscribe()
    }

    /// Connections begun since the last time, by slice: the busiest `most` of the slices of `length` in `space`.
    pub(super) fn load(&self, space: &[Ipv6Net], length: u8, most: usize) -> Vec<(Ipv6Addr, u32)> {
        let mut by_slice: HashMap<Ipv6Addr, u32> = HashMap::new();
        let mut open = self.open.lock();
        for (address, of_one) in open.iter_mut().filter(|(_, open)| open.begun > 0) {
            let slice = space.iter().any(|prefix| prefix.contains(address)).then(|| Ipv6Net::new(*address, length));
            if let Some(Ok(slice)) = slice {
                *by_slice.entry(slice.network()).or_default() += std::mem::take(&mut of_one.begun);
            }
        }
        open.retain(|_, of_one| of_one.now > 0 || of_one.begun > 0);
        drop(open);
        let mut busiest: Vec<_> = by_slice.into_iter().collect();
        busiest.sort_unstable_by_key(|&(slice, begun)| (std::cmp::Reverse(begun), slice));
        busiest.truncate(most);
        busiest
    }

    /// What the pod has from now on.
    pub(super) fn replace(&self, has: &[Has]) {
        let before = self.table.load_full();
        let mut table = Table { lapses: before.lapses, went: before.went.clone(), ..Table::default() };
        let now = Instant::now();
        table.went.retain(|(_, _, until)| *until > now);
        for has in has {
            table.add(has);
        }
        for &(prefix, to) in &before.elsewhere {
            if around(&table.elsewhere, |(prefix, _)| *prefix, prefix.network()).is_none() {
                table.went.push((prefix, to, now + REMEMBERED));
            }
        }
        let excess = table.went.len().saturating_sub(MOST_REMEMBERED);
        table.went.drain(..excess);
        table.here.sort_unstable();
        table.elsewhere.sort_unstable();
        self.table.store(Arc::new(table));
        self.changed.send_modify(|version| *version += 1);
    }

    /// The lease lasts until `lapses`.
    pub(super) fn renewed(&self, lapses: Instant) {
        let before = self.table.load_full();
        if before.lapses != Some(lapses) {
            self.table.store(Arc::new(Table { lapses: Some(lapses), ..Table::clone(&before) }));
        }
    }
}

impl Table {
    fn knows(&self, address: Ipv6Addr) -> bool {
        self.spaces.iter().any(|space| space.contains(&address))
    }

    fn add(&mut self, has: &Has) {
        self.spaces.extend(&has.space);
        self.here.extend(&has.share.held);
        for arriving in &has.share.arriving {
            match arriving.from {
                // Until it may be routed here, it is still the other's.
                Some(from) if arriving.step == Step::Planned => {
                    self.elsewhere.extend(arriving.prefixes.iter().map(|&prefix| (prefix, from.address)));
                }
                Some(_) | None => self.here.extend(&arriving.prefixes),
            }
        }
        for leaving in &has.share.leaving {
            if leaving.step >= Step::Routed {
                self.elsewhere.extend(leaving.prefixes.iter().map(|&prefix| (prefix, leaving.to.address)));
            } else {
                self.here.extend(&leaving.prefixes);
            }
        }
    }
}

/// The entry of an ordered list whose prefix holds the address.
fn around<T>(list: &[T], prefix: impl Fn(&T) -> Ipv6Net, address: Ipv6Addr) -> Option<&T> {
    let after = list.partition_point(|one| prefix(one).network() <= address);
    list.get(after.checked_sub(1)?).filter(|one| prefix(one).contains(&address))
}

impl Drop for Guard {
    fn drop(&mut self) {
        let mut open = self.slices.open.lock();
        if let Some(of_one) = open.get_mut(&self.address) {
            of_one.now -= 1;
            if of_one.now == 0 && of_one.begun == 0 {
                open.remove(&self.address);
            }
        }
        drop(open);
        self.slices.ended.send_modify(|ended| *ended += 1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::registry::lease::{Arriving, HandoverId, Leaving, Peer, Share};

    fn net(text: &str) -> Ipv6Net {
        text.parse().unwrap()
    }

    fn peer(last: u16) -> Peer {
        Peer { address: SocketAddrV6::new(Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, last), 15_006, 0, 0), node: None }
    }

    fn has(share: Share) -> Has {
        Has { space: vec![net("2001:db8:5:1::/64")], slice_length: 66, share }
    }

    fn standing(slices: &Slices, quarter: u8) -> Standing {
        slices.standing(format!("2001:db8:5:1:{:x}000::7", quarter * 4).parse().unwrap())
    }

    #[tokio::test(start_paused = true)]
    async fn before_anything_is_known_everything_is_here_unless_calls_need_a_lease() {
        assert_eq!(standing(&Slices::new(Lapsed::Serve), 0), Standing::Here);
        let strict = Slices::new(Lapsed::Refuse);
        assert_eq!(standing(&strict, 0), Standing::Lapsed);
        strict.renewed(Instant::now() + Duration::from_secs(1));
        assert_eq!(standing(&strict, 0), Standing::Here);
        tokio::time::advance(Duration::from_secs(1)).await;
        assert_eq!(standing(&strict, 0), Standing::Lapsed);
    }

    #[tokio::test(start_paused = true)]
    async fn a_slice_on_its_way_is_the_new_owners_as_soon_as_it_may_be_routed_there() {
        let slices = Slices::new(Lapsed::Serve);
        let prefixes = vec![net("2001:db8:5:1:4000::/66")];
        for (step, arrives, leaves) in [
            (Step::Planned, Standing::Elsewhere(Some(peer(2).address)), Standing::Here),
            (Step::Ready, Standing::Here, Standing::Here),
            (Step::Routed, Standing::Here, Standing::Elsewhere(Some(peer(2).address))),
            (Step::Withdrawn, Standing::Here, Standing::Elsewhere(Some(peer(2).address))),
        ] {
            let arriving = Arriving { id: HandoverId(1), step, prefixes: prefixes.clone(), from: Some(peer(2)) };
            slices.replace(&[has(Share { arriving: vec![arriving], ..Share::default() })]);
            assert_eq!(standing(&slices, 1), arrives, "{step:?}");
            let leaving = Leaving { id: HandoverId(1), step, prefixes: prefixes.clone(), to: peer(2) };
            slices.replace(&[has(Share { leaving: vec![leaving], ..Share::default() })]);
            assert_eq!(standing(&slices, 1), leaves, "{step:?}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn where_a_slice_went_is_remembered_for_a_while() {
        let slices = Slices::new(Lapsed::Serve);
        let prefixes = vec![net("2001:db8:5:1:4000::/66")];
        let leaving = Leaving { id: HandoverId(1), step: Step::Withdrawn, prefixes, to: peer(2) };
        slices.replace(&[has(Share { leaving: vec![leaving], ..Share::default() })]);
        slices.replace(&[has(Share::default())]);
        assert_eq!(standing(&slices, 1), Standing::Elsewhere(Some(peer(2).address)));
        tokio::time::advance(REMEMBERED).await;
        assert_eq!(standing(&slices, 1), Standing::Elsewhere(None));
    }

    #[tokio::test]
    async fn open_connections_and_the_busiest_slices_are_counted() {
        let slices = Arc::new(Slices::new(Lapsed::Serve));
        let space = [net("2001:db8:5:1::/64")];
        let enter = |text: &str| slices.enter(text.parse().unwrap());
        let one = enter("2001:db8:5:1:4000::1");
        drop((enter("2001:db8:5:1:4000::2"), enter("2001:db8:5:1::1")));
        assert_eq!(slices.open_in(&[net("2001:db8:5:1:4000::/66")]), 1);
        let quarter = |at: &str| at.parse::<Ipv6Addr>().unwrap();
        assert_eq!(slices.load(&space, 66, 1), [(quarter("2001:db8:5:1:4000::"), 2)]);
        assert!(slices.load(&space, 66, 9).iter().all(|&(_, begun)| begun > 0));
        drop(one);
        assert_eq!(slices.open_in(&space), 0);
        assert!(slices.load(&space, 66, 9).is_empty() && slices.open.lock().is_empty());
    }

    #[tokio::test]
    async fn whoever_waits_for_a_slice_to_leave_hears_when_it_has() {
        let slices = Arc::new(Slices::new(Lapsed::Serve));
        let held = vec![net("2001:db8:5:1:4000::/66")];
        slices.replace(&[has(Share { held, ..Share::default() })]);
        let waiting = tokio::spawn({
            let slices = Arc::clone(&slices);
            async move { slices.left("2001:db8:5:1:4000::1".parse().unwrap()).await }
        });
        tokio::task::yield_now().await;
        assert!(!waiting.is_finished());
        slices.replace(&[has(Share::default())]);
        waiting.await.unwrap();
    }
}
