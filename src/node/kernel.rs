//! What the agent has in the kernel: reading it, and bringing it to what is wanted without a gap.
//!
//! The order of a change: where strays go, then the rules that find strays, then where slices go, and only then is
//! taken away what is not needed any longer. So whatever a packet meets half way through is right.

use std::collections::BTreeMap;
use std::net::Ipv6Addr;

use ipnet::{IpNet, Ipv6Net};

use super::place::Node;
use super::strays::TABLE;
use super::wanted::{Inherited, RouteKey, Wanted};
use super::{LEFT, PROTOCOL, SLICES, STRAYS};
use crate::net::nft::{self, NftError, Table};
use crate::net::routes::{Action, Batch, Change, Family, Netlink, Route, RouteError, Rule};

/// Why the kernel is not as it should be.
#[derive(Debug, thiserror::Error)]
pub(super) enum KernelError {
    #[error(transparent)]
    Route(#[from] RouteError),
    #[error(transparent)]
    Nft(#[from] NftError),
}

/// The kernel, as far as it is ours.
#[derive(Debug)]
pub(super) struct Kernel {
    netlink: Netlink,
    batch: Batch,
    mtu: u32,
    routes: BTreeMap<RouteKey, Route>,
    rules: Vec<Rule>,
    table: Option<Table>,
    /// Why nothing can be carried, if so.
    tunnel: Result<(), String>,
}

/// What came of a change.
#[derive(Debug)]
pub(super) struct Applied {
    /// Routes and rules that were changed, the table of packet rules counted as one.
    pub(super) changes: usize,
    /// Routes that the kernel refused.
    pub(super) refused: Vec<(RouteKey, RouteError)>,
}

impl Kernel {
    /// Reads what is there, and makes the tunnel device if it is not.
    pub(super) async fn open(node: &Node, mtu: u16) -> Result<Self, KernelError> {
        let (netlink, batch) = (Netlink::here()?, Batch::here()?);
        let (routes, rules, mtu) = (BTreeMap::new(), Vec::new(), u32::from(mtu));
        let mut kernel = Self { netlink, batch, mtu, routes, rules, table: None, tunnel: Ok(()) };
        kernel.look(node).await?;
        Ok(kernel)
    }

    pub(super) const fn netlink(&self) -> &Netlink {
        &self.netlink
    }

    /// Why nothing can be carried, if so.
    pub(super) fn tunnel_fault(&self) -> Option<&str> {
        self.tunnel.as_ref().err().map(String::as_str)
    }

    /// Whether this route is one that we believe to be there.
    pub(super) fn has(&self, key: &RouteKey) -> bool {
        self.routes.contains_key(key)
    }

    /// How many slices are routed.
    pub(super) fn slices(&self) -> usize {
        self.routes.keys().filter(|(table, _)| *table == SLICES).count()
    }

    /// How many slices have strays.
    pub(super) fn strays(&self) -> usize {
        self.routes.keys().filter(|(table, _)| [STRAYS, LEFT].contains(table)).count()
    }

    /// Reads everything again; gives how much was not as we had left it.
    pub(super) async fn look(&mut self, node: &Node) -> Result<usize, KernelError> {
        self.tunnel = make_tunnel(&self.netlink, node, self.mtu).await.map_err(|error| error.to_string());
        let found = self.netlink.routes(Family::V6, PROTOCOL).await?;
        let found = found.into_iter().filter_map(|route| Some((key(&route)?, route)));
        let found: BTreeMap<_, _> = found.filter(|((table, _), _)| is_ours(node, *table)).collect();
        let rules = self.netlink.rules(Family::V6, PROTOCOL).await?;
        let rules: Vec<_> = rules.into_iter().filter(|rule| is_ours(node, rule.table)).collect();
        let lost = self.routes.iter().filter(|(key, route)| !found.get(key).is_some_and(|found| same(route, found)));
        let strange = found.keys().filter(|key| !self.routes.contains_key(key));
        let mut differences = lost.count() + strange.count();
        differences += self.rules.iter().filter(|rule| !rules.contains(rule)).count();
        differences += rules.iter().filter(|rule| !self.rules.contains(rule)).count();
        if let Some(table) = &self.table
            && nft::difference(table)?.is_some()
        {
            self.table = None;
            differences += 1;
        }
        (self.routes, self.rules) = (found, rules);
        Ok(differences)
    }

    /// What an earlier agent has left, and the numbers that it gave to pods.
    pub(super) fn inherited(&self, node: &Node) -> (Inherited, BTreeMap<Ipv6Addr, u16>) {
        let of_pod = |((table, _), route): (&RouteKey, &Route)| {
            let number = node.number_of(*table)?;
            match &route.action {
                Action::Unicast { via: Some(std::net::IpAddr::V6(pod)), .. } => Some((*pod, number)),
                Action::Unicast { .. }
                | Action::Local { .. }
                | Action::Tunnel { .. }
                | Action::Throw
                | Action::Unreachable => None,
            }
        };
        let numbers = self.routes.iter().filter_map(of_pod).collect();
        (Inherited { routes: self.routes.clone(), rules: self.rules.clone() }, numbers)
    }

    /// Makes everything as it is wanted.
    pub(super) async fn apply(&mut self, wanted: &Wanted) -> Result<Applied, KernelError> {
        let missing =
            |(key, route): &(&RouteKey, &Route)| !self.routes.get(key).is_some_and(|found| same(route, found));
        let (slices, others): (Vec<_>, Vec<_>) = wanted
            .routes
            .iter()
            .filter(missing)
            .map(|(key, route)| (*key, Change::Put(route.clone())))
            .partition(|((table, _), _)| *table == SLICES);
        let (old_slices, old_others): (Vec<_>, Vec<_>) = self
            .routes
            .iter()
            .filter(|(key, _)| !wanted.routes.contains_key(key))
            .map(|(key, route)| (*key, Change::Remove(route.clone())))
            .partition(|((table, _), _)| *table == SLICES);
        let mut applied = Applied { changes: 0, refused: Vec::new() };
        self.change(others, &mut applied).await?;
        self.add_rules(&wanted.rules, &mut applied).await?;
        if let Some(table) = &wanted.table
            && self.table.as_ref() != Some(table)
        {
            nft::replace(table)?;
            self.table = Some(table.clone());
            applied.changes += 1;
        }
        self.change(slices, &mut applied).await?;
        self.change(old_slices, &mut applied).await?;
        self.remove_rules(&wanted.rules, &mut applied).await?;
        self.change(old_others, &mut applied).await?;
        Ok(applied)
    }

    async fn change(&mut self, keyed: Vec<(RouteKey, Change)>, applied: &mut Applied) -> Result<(), KernelError> {
        let (keys, changes): (Vec<_>, Vec<_>) = keyed.into_iter().unzip();
        let refused = self.batch.perform(&changes).await?;
        applied.changes += changes.len() - refused.len();
        for (key, change) in keys.iter().zip(changes) {
            match change {
                Change::Put(route) => self.routes.insert(*key, route),
                Change::Remove(_) => self.routes.remove(key),
            };
        }
        for (at, error) in refused {
            self.routes.remove(&keys[at]);
            applied.refused.push((keys[at], error));
        }
        Ok(())
    }

    async fn add_rules(&mut self, wanted: &[Rule], applied: &mut Applied) -> Result<(), KernelError> {
        for rule in wanted.iter().filter(|rule| !self.rules.contains(rule)).cloned().collect::<Vec<_>>() {
            match self.netlink.add_rule(&rule).await {
                Err(error) if !error.already_exists() => return Err(error.into()),
                Ok(()) | Err(_) => {}
            }
            self.rules.push(rule);
            applied.changes += 1;
        }
        Ok(())
    }

    async fn remove_rules(&mut self, wanted: &[Rule], applied: &mut Applied) -> Result<(), KernelError> {
        for rule in self.rules.iter().filter(|rule| !wanted.contains(rule)).cloned().collect::<Vec<_>>() {
            self.netlink.delete_rule(&rule).await?;
            self.rules.retain(|known| *known != rule);
            applied.changes += 1;
        }
        Ok(())
    }
}

/// Takes everything away that an agent has left, however it was configured: everything under the protocol number that
/// leads into a table of ours.
pub(super) async fn remove(node: &Node) -> Result<(), KernelError> {
    let mut kernel = Kernel {
        netlink: Netlink::here()?,
        batch: Batch::here()?,
        mtu: 0,
        routes: BTreeMap::new(),
        rules: Vec::new(),
        table: None,
        tunnel: Ok(()),
    };
    let found = kernel.netlink.routes(Family::V6, PROTOCOL).await?;
    let found = found.into_iter().filter_map(|route| Some((key(&route)?, route)));
    kernel.routes = found.filter(|((table, _), _)| is_ours(node, *table)).collect();
    kernel.rules = kernel.netlink.rules(Family::V6, PROTOCOL).await?;
    kernel.rules.retain(|rule| is_ours(node, rule.table));
    let applied = kernel.apply(&Wanted::default()).await?;
    let rules = nft::remove(TABLE)?;
    let tunnel = match kernel.netlink.delete_link(&node.tunnel).await {
        Ok(()) => true,
        Err(RouteError::NoSuchDevice { .. }) => false,
        Err(error) => return Err(error.into()),
    };
    match applied.changes + usize::from(rules) + usize::from(tunnel) {
        0 => println!("nothing to remove"),
        _ => println!("removed"),
    }
    Ok(())
}

/// The tunnel device is there, up, and takes packets of the right size.
async fn make_tunnel(netlink: &Netlink, node: &Node, mtu: u32) -> Result<(), RouteError> {
    match netlink.link(&node.tunnel).await {
        Ok(link) if link.up && link.mtu == mtu => return Ok(()),
        Ok(_) => netlink.delete_link(&node.tunnel).await?,
        Err(RouteError::NoSuchDevice { .. }) => {}
        Err(error) => return Err(error),
    }
    netlink.add_tunnel(&node.tunnel, node.tunnel_port, mtu).await
}

fn is_ours(node: &Node, table: u32) -> bool {
    [SLICES, STRAYS, LEFT].contains(&table) || node.number_of(table).is_some()
}

fn key(route: &Route) -> Option<RouteKey> {
    match route.destination {
        IpNet::V6(destination) => Some((route.table, destination)),
        IpNet::V4(_) => None,
    }
}

/// Whether the kernel's route is what was wanted: where a next hop was given without its device, the kernel found it.
fn same(wanted: &Route, found: &Route) -> bool {
    match (&wanted.action, &found.action) {
        (Action::Unicast { via, device: None }, Action::Unicast { via: found_via, .. }) => via == found_via,
        (wanted, found) => wanted == found,
    }
}

/// Whether something that has changed in a table of the kernel's is our business.
pub(super) fn concerns(node: &Node, table: u32, destination: IpNet) -> Option<(u32, Ipv6Net)> {
    match destination {
        IpNet::V6(destination) if is_ours(node, table) => Some((table, destination)),
        IpNet::V6(_) | IpNet::V4(_) => None,
    }
}
