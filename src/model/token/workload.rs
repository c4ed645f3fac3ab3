//! The identity of a workload and patterns over it.
//!
//! A workload is `spiffe://<trust domain>/ns/<namespace>/sa/<account>` (SPIFFE-ID §2). Invariant of [`WorkloadId`]: the
//! text has exactly that form, so two identities are equal exactly when their texts are.

use std::fmt;
use std::ops::Range;
use std::str::FromStr;

/// SPIFFE-ID §2.3: an identity has at most 2048 octets.
const LONGEST: usize = 2048;
/// SPIFFE-ID §2.1: a trust domain has at most 255 octets.
const LONGEST_TRUST_DOMAIN: usize = 255;

/// Who a workload is.
#[derive(Clone, Eq, Hash, PartialEq)]
pub struct WorkloadId {
    text: Box<str>,
    trust_domain: Range<u16>,
    namespace: Range<u16>,
    account: Range<u16>,
}

/// Why a text is no workload identity, or no pattern of them.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum BadWorkloadId {
    /// Not `spiffe://<trust domain>/ns/<namespace>/sa/<account>`.
    #[error("not of the form spiffe://<trust domain>/ns/<namespace>/sa/<account>")]
    Form,
    /// Over 2048 octets, or a trust domain over 255.
    #[error("too long: an identity has at most 2048 octets, its trust domain 255")]
    TooLong,
    /// SPIFFE-ID §2.1: `a-z 0-9 . - _`.
    #[error("the trust domain is empty or holds something other than a-z, 0-9, '.', '-' and '_'")]
    TrustDomain,
    /// SPIFFE-ID §2.2: `a-z A-Z 0-9 . - _`, neither `.` nor `..`.
    #[error("the namespace is empty or holds something other than letters, digits, '.', '-' and '_'")]
    Namespace,
    /// As the namespace.
    #[error("the account is empty or holds something other than letters, digits, '.', '-' and '_'")]
    Account,
}

impl WorkloadId {
    /// The workload that a Kubernetes cluster calls `system:serviceaccount:<namespace>:<account>`, in the trust domain
    /// that stands for the cluster.
    ///
    /// # Errors
    /// [`BadWorkloadId`] when the subject is of another form.
    pub fn of_service_account(trust_domain: &TrustDomain, subject: &str) -> Result<Self, BadWorkloadId> {
        let account = subject.strip_prefix("system:serviceaccount:").ok_or(BadWorkloadId::Form)?;
        let (namespace, account) = account.split_once(':').ok_or(BadWorkloadId::Form)?;
        format!("spiffe://{trust_domain}/ns/{namespace}/sa/{account}").parse()
    }

    /// The trust domain: whose word the identity rests on.
    #[must_use]
    pub fn trust_domain(&self) -> &str {
        self.part(&self.trust_domain)
    }

    /// The namespace.
    #[must_use]
    pub fn namespace(&self) -> &str {
        self.part(&self.namespace)
    }

    /// The service account.
    #[must_use]
    pub fn account(&self) -> &str {
        self.part(&self.account)
    }

    /// The whole identity, a URI.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.text
    }

    fn part(&self, range: &Range<u16>) -> &str {
        &self.text[usize::from(range.start)..usize::from(range.end)]
    }
}

impl FromStr for WorkloadId {
    type Err = BadWorkloadId;

    fn from_str(text: &str) -> Result<Self, BadWorkloadId> {
        let [trust_domain, namespace, account] = split(text)?;
        check_trust_domain(trust_domain)?;
        check_segment(namespace, BadWorkloadId::Namespace)?;
        check_segment(account, BadWorkloadId::Account)?;
        // Each part lies in `text`, which is far shorter than 2^16.
        let range = |part: &str| {
            let start = part.as_ptr().addr() - text.as_ptr().addr();
            start as u16..(start + part.len()) as u16
        };
        Ok(Self {
            trust_domain: range(trust_domain),
            namespace: range(namespace),
            account: range(account),
            text: text.into(),
        })
    }
}

impl fmt::Display for WorkloadId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl fmt::Debug for WorkloadId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Whose word identities rest on: `shop.example` (SPIFFE-ID §2.1).
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub struct TrustDomain(Box<str>);

impl TrustDomain {
    /// Its name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for TrustDomain {
    type Err = BadWorkloadId;

    fn from_str(text: &str) -> Result<Self, BadWorkloadId> {
        check_trust_domain(text)?;
        Ok(Self(text.into()))
    }
}

impl fmt::Display for TrustDomain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Which workloads may call: an identity whose trust domain, namespace or account may be `*`, which stands for any
/// one. A `*` is a whole part, never a piece of one: `shop-*` is refused, because it would look like it works.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub struct CallerPattern {
    /// `None` stands for `*`.
    parts: [Option<Box<str>>; 3],
}

impl CallerPattern {
    /// Whether `id` is one of these.
    #[must_use]
    pub fn matches(&self, id: &WorkloadId) -> bool {
        let parts = [id.trust_domain(), id.namespace(), id.account()];
        self.parts.iter().zip(parts).all(|(pattern, part)| pattern.as_deref().is_none_or(|wanted| wanted == part))
    }
}

impl FromStr for CallerPattern {
    type Err = BadWorkloadId;

    fn from_str(text: &str) -> Result<Self, BadWorkloadId> {
        let [trust_domain, namespace, account] = split(text)?.map(|part| (part != "*").then_some(part));
        trust_domain.map_or(Ok(()), check_trust_domain)?;
        namespace.map_or(Ok(()), |part| check_segment(part, BadWorkloadId::Namespace))?;
        account.map_or(Ok(()), |part| check_segment(part, BadWorkloadId::Account))?;
        Ok(Self { parts: [trust_domain, namespace, account].map(|part| part.map(Box::from)) })
    }
}

impl fmt::Display for CallerPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [trust_domain, namespace, account] = self.parts.each_ref().map(|part| part.as_deref().unwrap_or("*"));
        write!(f, "spiffe://{trust_domain}/ns/{namespace}/sa/{account}")
    }
}

/// The trust domain, the namespace and the account, not yet checked.
fn split(text: &str) -> Result<[&str; 3], BadWorkloadId> {
    if text.len() > LONGEST {
        return Err(BadWorkloadId::TooLong);
    }
    let rest = text.strip_prefix("spiffe://").ok_or(BadWorkloadId::Form)?;
    let mut parts = rest.split('/');
    let mut next = || parts.next().ok_or(BadWorkloadId::Form);
    let (trust_domain, ns, namespace, sa, account) = (next()?, next()?, next()?, next()?, next()?);
    if ns != "ns" || sa != "sa" || parts.next().is_some() {
        return Err(BadWorkloadId::Form);
    }
    Ok([trust_domain, namespace, account])
}

fn check_trust_domain(part: &str) -> Result<(), BadWorkloadId> {
    if part.len() > LONGEST_TRUST_DOMAIN {
        return Err(BadWorkloadId::TooLong);
    }
    let fits = |octet: u8| octet.is_ascii_lowercase() || octet.is_ascii_digit() || b".-_".contains(&octet);
    if part.is_empty() || !part.bytes().all(fits) {
        return Err(BadWorkloadId::TrustDomain);
    }
    Ok(())
}

fn check_segment(part: &str, wrong: BadWorkloadId) -> Result<(), BadWorkloadId> {
    let fits = |octet: u8| octet.is_ascii_alphanumeric() || b".-_".contains(&octet);
    if matches!(part, "" | "." | "..") || !part.bytes().all(fits) {
        return Err(wrong);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const WEB: &str = "spiffe://shop.example/ns/default/sa/web";

    fn id(text: &str) -> WorkloadId {
        text.parse().unwrap()
    }

    fn pattern(text: &str) -> CallerPattern {
        text.parse().unwrap()
    }

    #[test]
    fn an_identity_gives_its_three_parts_and_its_text() {
        let web = id(WEB);
        assert_eq!((web.trust_domain(), web.namespace(), web.account()), ("shop.example", "default", "web"));
        assert_eq!(web.to_string(), WEB);
    }

    #[test]
    fn what_is_no_identity_is_refused_with_the_part_that_is_wrong() {
        for (text, wrong) in [
            ("", BadWorkloadId::Form),
            ("https://shop.example/ns/default/sa/web", BadWorkloadId::Form),
            ("spiffe://shop.example/ns/default", BadWorkloadId::Form),
            ("spiffe://shop.example/ns/default/sa/web/", BadWorkloadId::Form),
            ("spiffe://shop.example/NS/default/sa/web", BadWorkloadId::Form),
            ("spiffe:///ns/default/sa/web", BadWorkloadId::TrustDomain),
            ("spiffe://Shop.example/ns/default/sa/web", BadWorkloadId::TrustDomain),
            ("spiffe://user@shop.example/ns/default/sa/web", BadWorkloadId::TrustDomain),
            ("spiffe://shop.example:8080/ns/default/sa/web", BadWorkloadId::TrustDomain),
            ("spiffe://shop.example/ns//sa/web", BadWorkloadId::Namespace),
            ("spiffe://shop.example/ns/../sa/web", BadWorkloadId::Namespace),
            ("spiffe://shop.example/ns/default/sa/we%20b", BadWorkloadId::Account),
            ("spiffe://shop.example/ns/*/sa/web", BadWorkloadId::Namespace),
        ] {
            assert_eq!(text.parse::<WorkloadId>().unwrap_err(), wrong, "{text}");
        }
    }

    #[test]
    fn a_service_account_is_the_workload_of_its_namespace_in_the_clusters_trust_domain() {
        let account = |subject| WorkloadId::of_service_account(&"shop.example".parse().unwrap(), subject);
        assert_eq!(account("system:serviceaccount:default:web").unwrap(), id(WEB));
        for (subject, wrong) in [
            ("system:node:worker-1", BadWorkloadId::Form),
            ("system:serviceaccount:default", BadWorkloadId::Form),
            ("system:serviceaccount::web", BadWorkloadId::Namespace),
            ("system:serviceaccount:default:web:more", BadWorkloadId::Account),
            ("system:serviceaccount:default:web/sa/root", BadWorkloadId::Form),
            (WEB, BadWorkloadId::Form),
        ] {
            assert_eq!(account(subject).unwrap_err(), wrong, "{subject}");
        }
    }

    #[test]
    fn an_identity_may_have_2048_octets_and_not_2049() {
        let prefix = "spiffe://shop.example/ns/default/sa/";
        let longest = format!("{prefix}{}", "a".repeat(2048 - prefix.len()));
        assert_eq!(id(&longest).account().len(), 2048 - prefix.len());
        assert_eq!(format!("{longest}a").parse::<WorkloadId>().unwrap_err(), BadWorkloadId::TooLong);
    }

    #[test]
    fn a_trust_domain_may_have_255_octets_and_not_256() {
        let of = |length: usize| format!("spiffe://{}/ns/default/sa/web", "a".repeat(length)).parse::<WorkloadId>();
        assert!(of(255).is_ok());
        assert_eq!(of(256).unwrap_err(), BadWorkloadId::TooLong);
    }

    #[test]
    fn a_star_stands_for_any_one_part_and_everything_else_for_itself() {
        let web = id(WEB);
        assert!(pattern(WEB).matches(&web));
        assert!(pattern("spiffe://shop.example/ns/*/sa/*").matches(&web));
        assert!(pattern("spiffe://*/ns/*/sa/web").matches(&web));
        assert!(!pattern("spiffe://other.example/ns/*/sa/*").matches(&web));
        assert!(!pattern("spiffe://shop.example/ns/default/sa/we").matches(&web));
        assert_eq!(pattern("spiffe://*/ns/*/sa/web").to_string(), "spiffe://*/ns/*/sa/web");
    }

    #[test]
    fn a_star_inside_a_part_is_refused() {
        assert_eq!("spiffe://a.b/ns/shop-*/sa/web".parse::<CallerPattern>().unwrap_err(), BadWorkloadId::Namespace);
        assert_eq!("spiffe://a.b/ns/x/sa/**".parse::<CallerPattern>().unwrap_err(), BadWorkloadId::Account);
        assert_eq!("*".parse::<CallerPattern>().unwrap_err(), BadWorkloadId::Form);
    }
}
