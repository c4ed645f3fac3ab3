//! When the webhook's authority and certificate are renewed. Pure: the certificates and the time come in, a step comes out.
//!
//! ```text
//! authority A ├───────────────────────────────┤
//! authority B                     ├───────────────────────────────┤
//! bundle      │ A                 │ A B       │ B
//! certificate │ by A, by A, by A,  by A │ by B, by B, …
//!                                 └overlap┘
//! ```
//!
//! Invariant: an authority is in the bundle for the overlap before a certificate of its own is served, and stays there
//! until it runs out: the API server, which may read the bundle late, never meets a certificate that it does not believe.

use std::time::Duration;

use crate::model::UnixSeconds;
use crate::wire::x509::Validity;

/// How many lives of a certificate an authority lives.
pub(super) const AUTHORITY_LIVES: u32 = 5;
/// How long an authority is in the bundle before it is used, at most.
const LONGEST_OVERLAP: Duration = Duration::from_secs(300);

/// What there is.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct Held {
    /// The authorities of the bundle, the newest first; its key is the one that signs.
    pub(super) authorities: Vec<Validity>,
    /// The certificate that is served.
    pub(super) leaf: Validity,
}

/// What has to be done.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Step {
    /// Nothing.
    Keep,
    /// A new authority and a certificate of its own: there is nothing that could still be believed.
    Begin,
    /// A new authority before the others in the bundle.
    Authority,
    /// A new certificate of the newest authority.
    Leaf,
    /// Authorities that have run out leave the bundle.
    Sweep,
}

/// The next step; `life` is a certificate's.
pub(super) fn next(held: Option<&Held>, now: UnixSeconds, life: Duration) -> Step {
    let Some(held) = held else { return Step::Begin };
    let left = |validity: Validity| Duration::from_secs(validity.not_after.0.saturating_sub(now.0));
    let Some(&newest) = held.authorities.first() else { return Step::Begin };
    if left(newest).is_zero() {
        return Step::Begin;
    }
    if left(newest) < life * AUTHORITY_LIVES / 3 {
        return Step::Authority;
    }
    let overlap = LONGEST_OVERLAP.min(life / 10);
    let published = Duration::from_secs(now.0.saturating_sub(newest.not_before.0)) >= overlap + BACKDATED;
    let by_older = held.leaf.not_before < newest.not_before;
    let due = left(held.leaf) < life / 3 || by_older;
    // Without an older authority there is nothing to wait for, and neither when the certificate has run out.
    if due && (published || held.authorities.len() == 1 || left(held.leaf).is_zero()) {
        return Step::Leaf;
    }
    if held.authorities.iter().any(|authority| left(*authority).is_zero()) {
        return Step::Sweep;
    }
    Step::Keep
}

/// How far before the present a certificate begins, for clocks that are behind.
pub(super) const BACKDATED: Duration = Duration::from_secs(300);

#[cfg(test)]
mod tests {
    use super::*;

    const LIFE: Duration = Duration::from_secs(9_000);
    const NOW: UnixSeconds = UnixSeconds(1_000_000);

    /// A certificate made `age` seconds ago that has `left` seconds.
    fn made(age: u64, left: u64) -> Validity {
        let not_before = UnixSeconds(NOW.0 - age - BACKDATED.as_secs());
        Validity { not_before, not_after: UnixSeconds(NOW.0 + left) }
    }

    fn step(authorities: &[Validity], leaf: Validity) -> Step {
        next(Some(&Held { authorities: authorities.to_vec(), leaf }), NOW, LIFE)
    }

    #[test]
    fn nothing_to_begin_with_is_begun() {
        assert_eq!(next(None, NOW, LIFE), Step::Begin);
        assert_eq!(step(&[], made(0, 9_000)), Step::Begin);
        assert_eq!(step(&[made(45_000, 0)], made(0, 9_000)), Step::Begin);
    }

    #[test]
    fn a_certificate_is_renewed_when_a_third_of_its_life_is_left() {
        let authority = [made(10_000, 35_000)];
        assert_eq!(step(&authority, made(6_000, 3_000)), Step::Keep);
        assert_eq!(step(&authority, made(6_001, 2_999)), Step::Leaf);
    }

    #[test]
    fn an_authority_is_renewed_when_a_third_of_its_life_is_left() {
        assert_eq!(step(&[made(30_000, 15_000)], made(0, 9_000)), Step::Keep);
        assert_eq!(step(&[made(30_001, 14_999)], made(0, 9_000)), Step::Authority);
    }

    #[test]
    fn a_new_authority_is_not_used_before_it_has_been_published_for_the_overlap() {
        let old = made(30_001, 14_999);
        let leaf = made(5_000, 4_000);
        assert_eq!(step(&[made(299, 45_000), old], leaf), Step::Keep);
        assert_eq!(step(&[made(300, 45_000), old], leaf), Step::Leaf);
        assert_eq!(step(&[made(300, 45_000), old], made(0, 9_000)), Step::Keep);
    }

    #[test]
    fn a_certificate_that_has_run_out_waits_for_nobody() {
        assert_eq!(step(&[made(1, 45_000), made(30_001, 14_999)], made(9_000, 0)), Step::Leaf);
    }

    #[test]
    fn an_authority_leaves_the_bundle_only_when_it_has_run_out() {
        let newest = made(15_000, 30_000);
        assert_eq!(step(&[newest, made(44_999, 1)], made(10, 8_990)), Step::Keep);
        assert_eq!(step(&[newest, made(45_000, 0)], made(10, 8_990)), Step::Sweep);
    }

    #[test]
    fn through_years_every_certificate_is_one_that_the_bundle_of_before_believes() {
        let made_at = |now: u64, life: Duration| Validity {
            not_before: UnixSeconds(now - BACKDATED.as_secs()),
            not_after: UnixSeconds(now + life.as_secs()),
        };
        let mut now = NOW.0;
        let (mut authorities, mut leaf) = (vec![made_at(now, LIFE * AUTHORITY_LIVES)], made_at(now, LIFE));
        let (mut signer, mut steps) = (authorities[0], 0);
        for _ in 0..20_000 {
            now += 60;
            let before = authorities.clone();
            match next(Some(&Held { authorities: authorities.clone(), leaf }), UnixSeconds(now), LIFE) {
                Step::Keep => continue,
                Step::Begin => panic!("begun anew at {now}"),
                Step::Authority => authorities.insert(0, made_at(now, LIFE * AUTHORITY_LIVES)),
                Step::Leaf => {
                    leaf = made_at(now, LIFE);
                    signer = authorities[0];
                    assert!(before.contains(&signer));
                }
                Step::Sweep => authorities.retain(|authority| authority.not_after.0 > now),
            }
            steps += 1;
            assert!(authorities.contains(&signer), "the signer has left the bundle at {now}");
            assert!(leaf.not_after.0 > now && signer.not_after.0 > now, "run out at {now}");
        }
        assert!(steps > 100 && authorities.len() <= 3, "{steps} steps, {} authorities", authorities.len());
    }
}
