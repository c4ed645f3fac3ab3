//! The way from the network a pod has to the one it is to have: single changes, in a safe order.
//!
//! Routes and rules come first, each of which can be undone; then the packet rules, in one transaction; then what is
//! left of an earlier plan goes. So until the transaction everything can be undone, and after it everything is in place.
//! Removing goes the other way round.

use std::fmt;

use super::TABLE;
use super::routing::Routing;
use crate::net::nft::{Difference, Table};
use crate::net::routes::{Route, Rule};

/// One change. Prints as the command that would make it.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) enum Step {
    AddRoute(Route),
    /// Both have the same destination in the same table.
    ReplaceRoute {
        old: Route,
        new: Route,
    },
    DeleteRoute(Route),
    AddRule(Rule),
    DeleteRule(Rule),
    /// Whatever stood in the table is forgotten.
    ReplaceTable {
        table: Table,
        why: Difference,
    },
    RemoveTable,
}

impl Step {
    /// What undoes it; nothing does for the packet rules.
    pub(super) fn inverse(&self) -> Option<Self> {
        match self {
            Self::AddRoute(route) => Some(Self::DeleteRoute(route.clone())),
            Self::ReplaceRoute { old, new } => Some(Self::ReplaceRoute { old: new.clone(), new: old.clone() }),
            Self::DeleteRoute(route) => Some(Self::AddRoute(route.clone())),
            Self::AddRule(rule) => Some(Self::DeleteRule(rule.clone())),
            Self::DeleteRule(rule) => Some(Self::AddRule(rule.clone())),
            Self::ReplaceTable { .. } | Self::RemoveTable => None,
        }
    }

    /// The command, in one line.
    pub(super) fn summary(&self) -> String {
        match self {
            Self::ReplaceTable { table, why } => {
                let rules: usize = table.chains.iter().map(|chain| chain.rules.len()).sum();
                format!("nft table inet {}: {} chains, {rules} rules ({why})", table.name, table.chains.len())
            }
            Self::AddRoute(_)
            | Self::ReplaceRoute { .. }
            | Self::DeleteRoute(_)
            | Self::AddRule(_)
            | Self::DeleteRule(_)
            | Self::RemoveTable => self.to_string(),
        }
    }
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::AddRoute(route) => write!(f, "ip {} route add {route}", route.family()),
            Self::ReplaceRoute { new, .. } => write!(f, "ip {} route replace {new}", new.family()),
            Self::DeleteRoute(route) => write!(f, "ip {} route delete {route}", route.family()),
            Self::AddRule(rule) => write!(f, "ip {} rule add {rule}", rule.family),
            Self::DeleteRule(rule) => write!(f, "ip {} rule delete {rule}", rule.family),
            // Adding first makes sure that there is something to delete.
            Self::ReplaceTable { table, .. } => {
                let name = &table.name;
                write!(f, "nft -f - <<'END'\ntable inet {name}\ndelete table inet {name}\n{table}END")
            }
            Self::RemoveTable => write!(f, "nft delete table inet {TABLE}"),
        }
    }
}

/// `steps` as a shell script.
pub(super) fn script(steps: &[Step]) -> String {
    if steps.is_empty() {
        return "# in place already: nothing to do\n".to_owned();
    }
    steps.iter().map(|step| format!("{step}\n")).collect()
}

/// What turns the routing that is `present` into the one that is `wanted`, with `table` between what is added and what
/// goes.
pub(super) fn towards(wanted: &Routing, present: &Routing, table: Option<Step>) -> Vec<Step> {
    let place = |route: &Route| (route.table, route.destination);
    let add_route = |new: &Route| match present.routes.iter().find(|old| place(old) == place(new)) {
        Some(old) if old == new => None,
        Some(old) => Some(Step::ReplaceRoute { old: old.clone(), new: new.clone() }),
        None => Some(Step::AddRoute(new.clone())),
    };
    let add_rule = |rule: &Rule| (!present.rules.contains(rule)).then(|| Step::AddRule(rule.clone()));
    let stale_rule = |rule: &Rule| (!wanted.rules.contains(rule)).then(|| Step::DeleteRule(rule.clone()));
    let stale_route = |old: &Route| {
        let kept = wanted.routes.iter().any(|new| place(new) == place(old));
        (!kept).then(|| Step::DeleteRoute(old.clone()))
    };
    wanted
        .routes
        .iter()
        .filter_map(add_route)
        .chain(wanted.rules.iter().filter_map(add_rule))
        .chain(table)
        .chain(present.rules.iter().filter_map(stale_rule))
        .chain(present.routes.iter().filter_map(stale_route))
        .collect()
}

/// What removes the routing that is `present`, and the packet rules where there are any.
pub(super) fn away(present: &Routing, table: bool) -> Vec<Step> {
    table
        .then_some(Step::RemoveTable)
        .into_iter()
        .chain(present.rules.iter().cloned().map(Step::DeleteRule))
        .chain(present.routes.iter().cloned().map(Step::DeleteRoute))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::super::redirect::table;
    use super::super::routing::{Pod, routing};
    use super::super::tests::plan;
    use super::*;

    const POD: Pod = Pod { ipv6: true, ipv4_address: true };
    const FLAGS: &str = "--uid 1337 --service-prefix 2001:db8:5::/64";

    fn wanted(flags: &str) -> Routing {
        routing(&plan(flags), POD)
    }

    fn new_table() -> Step {
        Step::ReplaceTable { table: table(&plan(FLAGS)), why: Difference::NoTable }
    }

    #[test]
    fn packet_rules_come_after_all_that_is_added_and_before_all_that_goes() {
        let (old, new) = (wanted("--uid 1 --service-prefix 2001:db8:4::/64"), wanted(FLAGS));
        let steps = towards(&new, &old, Some(new_table()));
        let [Step::AddRoute(added), Step::ReplaceTable { .. }, Step::DeleteRoute(gone)] = steps.as_slice() else {
            panic!("{steps:?}");
        };
        assert_eq!(added.destination.to_string(), "2001:db8:5::/64");
        assert_eq!(gone.destination.to_string(), "2001:db8:4::/64");
    }

    #[test]
    fn a_route_that_changes_is_replaced_in_one() {
        let bare = routing(&plan(FLAGS), Pod { ipv4_address: false, ..POD });
        let steps = towards(&wanted(FLAGS), &bare, None);
        assert!(
            matches!(steps.as_slice(), [Step::ReplaceRoute { old, new }] if old.source.is_some() && new.source.is_none()),
            "{steps:?}"
        );
    }

    #[test]
    fn what_is_in_place_needs_no_step() {
        assert_eq!(towards(&wanted(FLAGS), &wanted(FLAGS), None), []);
        assert_eq!(script(&[]), "# in place already: nothing to do\n");
        assert_eq!(away(&Routing::default(), false), []);
    }

    #[test]
    fn undoing_what_was_undone_is_where_it_began() {
        for step in towards(&wanted(FLAGS), &Routing::default(), None) {
            assert_eq!(step.inverse().and_then(|step| step.inverse()), Some(step));
        }
        assert_eq!(Step::RemoveTable.inverse(), None);
    }

    #[test]
    fn removing_begins_with_the_packet_rules() {
        let steps = away(&wanted(FLAGS), true);
        assert_eq!(steps[0], Step::RemoveTable);
        assert_eq!(steps.len(), 1 + wanted(FLAGS).routes.len() + wanted(FLAGS).rules.len());
    }
}
