//! What this pod does about its handovers: what it claims of its node, and what it can tell Peak has been done.
//!
//! Pure. Shares are whole and claims are whole, so this is a function of what is known now, whatever was before.
//!
//! ```text
//!               claimed of the node          told to Peak
//! arriving  Planned    –                     Ready, once there is an agent, or none is needed
//!           Ready      arriving, from X      Routed, once the claim is in place; Wait, while it cannot be
//!           Routed…    arriving, from X      –
//! leaving   Planned    owned                 –
//!           Ready      owned                 –
//!           Routed     leaving               Withdrawn, once the claim is in place
//!           Withdrawn  leaving               Freed, once no connection is left or time is up
//! ```

use std::net::Ipv6Addr;

use ipnet::Ipv6Net;

use crate::model::registry::lease::{HandoverId, Reported, Share, Step};
use crate::wire::agent::{self, Place, SpaceClaim};

/// What the pod has of one service.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Has {
    /// The prefixes of the service's space.
    pub space: Vec<Ipv6Net>,
    /// The length of a slice's prefix.
    pub slice_length: u8,
    /// Its slices.
    pub share: Share,
}

/// How far the node is with the last claim.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) enum InPlace {
    /// Nothing is known of it yet.
    NotYet,
    /// All of it is.
    All,
    /// All but what arrives, and why.
    AllButArriving(Box<str>),
    /// None of it, and why.
    Nothing(Box<str>),
}

/// Something to tell Peak.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub(super) enum Tell {
    /// A step was taken.
    Done(HandoverId, Reported),
    /// A step cannot be taken, and why.
    Waits(HandoverId, Box<str>),
}

/// What is claimed of the node for one service: one claim for each prefix of its space.
pub(super) fn claims(has: &Has) -> Vec<SpaceClaim> {
    let of_one = |space: &Ipv6Net| {
        let inside = |prefixes: &[Ipv6Net]| -> Vec<Ipv6Net> {
            prefixes.iter().copied().filter(|prefix| space.contains(prefix)).collect()
        };
        let mut claim = SpaceClaim { space: *space, owned: inside(&has.share.held), ..empty(*space) };
        for arriving in has.share.arriving.iter().filter(|arriving| arriving.step > Step::Planned) {
            let prefixes = inside(&arriving.prefixes);
            match arriving.from.and_then(|from| Some(place(from.node?, *from.address.ip()))) {
                Some(from) if !prefixes.is_empty() => claim.arriving.push(agent::Arriving { prefixes, from }),
                // Nobody has connections that would have to be carried.
                Some(_) | None => claim.owned.extend(prefixes),
            }
        }
        for leaving in &has.share.leaving {
            let list = if leaving.step < Step::Routed { &mut claim.owned } else { &mut claim.leaving };
            list.extend(inside(&leaving.prefixes));
        }
        claim
    };
    has.space.iter().map(of_one).collect()
}

fn empty(space: Ipv6Net) -> SpaceClaim {
    SpaceClaim { space, owned: Vec::new(), arriving: Vec::new(), leaving: Vec::new() }
}

fn place(node: Ipv6Addr, pod: Ipv6Addr) -> Place {
    Place { node, pod }
}

/// What can be told of one service's handovers. `in_place` is of the claim that these shares make; `is_free` says
/// whether a leaving handover has no connection left here, or no time. Saying something twice does no harm.
pub(super) fn tell(has: &Has, in_place: &InPlace, is_free: impl Fn(HandoverId, &[Ipv6Net]) -> bool) -> Vec<Tell> {
    let mut told = Vec::new();
    for arriving in &has.share.arriving {
        match (arriving.step, in_place) {
            (Step::Planned, _) => told.push(Tell::Done(arriving.id, Reported::Ready)),
            (Step::Ready, InPlace::All) => told.push(Tell::Done(arriving.id, Reported::Routed)),
            (Step::Ready, InPlace::AllButArriving(why) | InPlace::Nothing(why)) => {
                told.push(Tell::Waits(arriving.id, why.clone()));
            }
            (Step::Ready, InPlace::NotYet) | (Step::Routed | Step::Withdrawn, _) => {}
        }
    }
    for leaving in &has.share.leaving {
        match (leaving.step, in_place) {
            (Step::Routed, InPlace::All | InPlace::AllButArriving(_)) => {
                told.push(Tell::Done(leaving.id, Reported::Withdrawn));
            }
            (Step::Routed, InPlace::Nothing(why)) => told.push(Tell::Waits(leaving.id, why.clone())),
            (Step::Withdrawn, _) if is_free(leaving.id, &leaving.prefixes) => {
                told.push(Tell::Done(leaving.id, Reported::Freed));
            }
            (Step::Planned | Step::Ready | Step::Withdrawn, _) | (Step::Routed, InPlace::NotYet) => {}
        }
    }
    told
}

/// Whether nothing is routed to this pod any more.
pub(super) fn is_handed_over(has: &[Has]) -> bool {
    has.iter().all(|has| {
        let gone = has.share.leaving.iter().all(|leaving| leaving.step == Step::Withdrawn);
        has.share.held.is_empty() && has.share.arriving.is_empty() && gone
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::registry::lease::{Arriving, Leaving, Peer};

    fn peer() -> Peer {
        Peer { address: "[fd00::2]:15006".parse().unwrap(), node: Some("fd00:1::2".parse().unwrap()) }
    }

    fn has(share: Share) -> Has {
        Has { space: vec!["2001:db8:5:1::/64".parse().unwrap()], slice_length: 66, share }
    }

    fn prefixes() -> Vec<Ipv6Net> {
        vec!["2001:db8:5:1:4000::/66".parse().unwrap()]
    }

    fn arriving(step: Step) -> Has {
        let arriving = Arriving { id: HandoverId(1), step, prefixes: prefixes(), from: Some(peer()) };
        has(Share { arriving: vec![arriving], ..Share::default() })
    }

    fn leaving(step: Step) -> Has {
        let leaving = Leaving { id: HandoverId(1), step, prefixes: prefixes(), to: peer() };
        has(Share { leaving: vec![leaving], ..Share::default() })
    }

    fn told(has: &Has, in_place: &InPlace, is_free: bool) -> Vec<Tell> {
        tell(has, in_place, |_, _| is_free)
    }

    fn done(reported: Reported) -> Vec<Tell> {
        vec![Tell::Done(HandoverId(1), reported)]
    }

    #[test]
    fn a_new_owner_claims_when_it_may_and_tells_when_it_is_routed() {
        assert_eq!(told(&arriving(Step::Planned), &InPlace::NotYet, false), done(Reported::Ready));
        assert!(claims(&arriving(Step::Planned))[0].prefixes().next().is_none());
        assert_eq!(told(&arriving(Step::Ready), &InPlace::NotYet, false), []);
        assert_eq!(told(&arriving(Step::Ready), &InPlace::All, false), done(Reported::Routed));
        for step in [Step::Ready, Step::Routed, Step::Withdrawn] {
            let claim = &claims(&arriving(step))[0];
            assert_eq!((claim.arriving[0].from.node, &claim.arriving[0].prefixes), (peer().node.unwrap(), &prefixes()));
        }
    }

    #[test]
    fn an_old_owner_stays_routed_until_the_new_one_is_and_frees_when_nothing_is_left() {
        for step in [Step::Planned, Step::Ready] {
            assert_eq!(claims(&leaving(step))[0].owned, prefixes());
            assert_eq!(told(&leaving(step), &InPlace::All, true), []);
        }
        for step in [Step::Routed, Step::Withdrawn] {
            assert_eq!((claims(&leaving(step))[0].owned.len(), &claims(&leaving(step))[0].leaving), (0, &prefixes()));
        }
        assert_eq!(told(&leaving(Step::Routed), &InPlace::All, false), done(Reported::Withdrawn));
        assert_eq!(told(&leaving(Step::Withdrawn), &InPlace::All, false), []);
        assert_eq!(told(&leaving(Step::Withdrawn), &InPlace::All, true), done(Reported::Freed));
    }

    #[test]
    fn what_cannot_be_carried_waits_and_says_why_while_withdrawals_go_on() {
        let why = InPlace::AllButArriving("no way to fd00:1::2".into());
        let waits = vec![Tell::Waits(HandoverId(1), "no way to fd00:1::2".into())];
        assert_eq!(told(&arriving(Step::Ready), &why, false), waits);
        assert_eq!(told(&leaving(Step::Routed), &why, false), done(Reported::Withdrawn));
    }

    #[test]
    fn with_nobody_to_carry_to_slices_are_owned_at_once() {
        let mut orphans = arriving(Step::Ready);
        orphans.share.arriving[0].from = None;
        assert_eq!(claims(&orphans)[0].owned, prefixes());
    }

    #[test]
    fn a_pod_has_handed_over_when_nothing_leads_to_it() {
        assert!(is_handed_over(&[has(Share::default()), leaving(Step::Withdrawn)]));
        for still in [leaving(Step::Routed), arriving(Step::Ready)] {
            assert!(!is_handed_over(&[still]));
        }
        assert!(!is_handed_over(&[has(Share { held: prefixes(), ..Share::default() })]));
    }
}
