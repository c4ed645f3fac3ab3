//! Where the content key stands in a request (SSA.md §2, "The content key").
//!
//! Client and checker both come here, so that they cannot differ. The key is what the request says, octet for octet:
//! nothing is decoded or normalised, and what is absent is the empty key.

use std::borrow::Cow;

use super::ContentSource;
use crate::model::Name;

/// A request, as far as a content key may depend on it.
pub trait Asked {
    /// The path with its leading `/`; of the absolute form its path, `/` where it has none.
    fn path(&self) -> &str;

    /// What follows the path's `?`.
    fn query(&self) -> Option<&str>;

    /// `:authority`, else Host.
    fn authority(&self) -> Option<&str>;

    /// The value of the first field line of this name, compared without case.
    fn field(&self, name: &str) -> Option<&[u8]>;
}

impl ContentSource {
    /// The content key of a request to `service`.
    #[must_use]
    pub fn key<'r>(&self, request: &'r impl Asked, service: &Name) -> Cow<'r, [u8]> {
        match self {
            Self::Path => request.path().as_bytes().into(),
            Self::Segment(number) => segment(request.path(), *number).as_bytes().into(),
            Self::Query(name) => parameter(request.query().unwrap_or_default(), name).as_bytes().into(),
            Self::Header(name) => request.field(name).unwrap_or_default().trim_ascii().into(),
            Self::Host => host(request.authority().unwrap_or_default()).into_bytes().into(),
            Self::Label => label(&host(request.authority().unwrap_or_default()), service).into(),
        }
    }
}

fn segment(path: &str, number: u8) -> &str {
    let parts = path.strip_prefix('/').unwrap_or(path);
    usize::from(number).checked_sub(1).and_then(|before| parts.split('/').nth(before)).unwrap_or_default()
}

fn parameter<'q>(query: &'q str, name: &str) -> &'q str {
    let pairs = query.split('&').map(|pair| pair.split_once('=').unwrap_or((pair, "")));
    pairs.into_iter().find(|(found, _)| *found == name).map_or("", |(_, value)| value)
}

/// The host of an authority: lower case, no port, no final dot.
fn host(authority: &str) -> String {
    let without_user = authority.rsplit_once('@').map_or(authority, |(_, after)| after);
    let host = match without_user.rsplit_once(':') {
        // The colons of an IPv6 literal stand inside its brackets.
        Some((host, port)) if !port.contains(']') => host,
        Some(_) | None => without_user,
    };
    host.strip_suffix('.').unwrap_or(host).to_ascii_lowercase()
}

fn label(host: &str, service: &Name) -> Vec<u8> {
    let name = host.parse::<Name>().ok().filter(|name| name.parent().as_ref() == Some(service));
    name.and_then(|name| name.labels().next().map(<[u8]>::to_vec)).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Request {
        target: &'static str,
        authority: Option<&'static str>,
    }

    impl Asked for Request {
        fn path(&self) -> &str {
            self.target.split('?').next().unwrap_or_default()
        }

        fn query(&self) -> Option<&str> {
            self.target.split_once('?').map(|(_, query)| query)
        }

        fn authority(&self) -> Option<&str> {
            self.authority
        }

        fn field(&self, name: &str) -> Option<&[u8]> {
            name.eq_ignore_ascii_case("X-Tenant").then_some(b" \tblue ")
        }
    }

    fn key(source: ContentSource, target: &'static str, authority: Option<&'static str>) -> String {
        let service = "orders.shop.peak".parse().unwrap();
        let request = Request { target, authority };
        String::from_utf8(source.key(&request, &service).into_owned()).unwrap()
    }

    #[test]
    fn a_path_is_taken_as_it_stands() {
        assert_eq!(key(ContentSource::Path, "/a%2Fb/../c//?q=1", None), "/a%2Fb/../c//");
        assert_eq!(key(ContentSource::Path, "/", None), "/");
    }

    #[test]
    fn segments_are_counted_from_one_and_empty_ones_count() {
        let segment = |number, path| key(ContentSource::Segment(number), path, None);
        assert_eq!(segment(1, "/cafe/2?x"), "cafe");
        assert_eq!(segment(2, "/cafe/2"), "2");
        assert_eq!(segment(2, "/cafe//3"), "");
        assert_eq!(segment(3, "/cafe//3"), "3");
        assert_eq!(segment(4, "/cafe//3"), "");
        assert_eq!(segment(1, "/"), "");
    }

    #[test]
    fn the_first_pair_of_the_very_name_counts() {
        let query = |target| key(ContentSource::Query("id".into()), target, None);
        assert_eq!(query("/?ID=0&id=a%20b&id=2"), "a%20b");
        assert_eq!(query("/?id=a=b"), "a=b");
        assert_eq!(query("/?id&x=1"), "");
        assert_eq!(query("/?x=id"), "");
        assert_eq!(query("/"), "");
    }

    #[test]
    fn a_field_is_taken_without_the_white_space_around_it() {
        assert_eq!(key(ContentSource::Header("x-tenant".into()), "/", None), "blue");
        assert_eq!(key(ContentSource::Header("x-other".into()), "/", None), "");
    }

    #[test]
    fn a_host_has_no_port_no_final_dot_and_lower_case() {
        let host = |authority| key(ContentSource::Host, "/", authority);
        assert_eq!(host(Some("Orders.Shop.Peak.:8080")), "orders.shop.peak");
        assert_eq!(host(Some("orders.shop.peak")), "orders.shop.peak");
        assert_eq!(host(Some("[2001:DB8::1]:80")), "[2001:db8::1]");
        assert_eq!(host(Some("[2001:db8::1]")), "[2001:db8::1]");
        assert_eq!(host(None), "");
    }

    #[test]
    fn a_label_is_exactly_one_below_the_service() {
        let label = |authority| key(ContentSource::Label, "/", Some(authority));
        assert_eq!(label("CAFE.orders.shop.peak:80"), "cafe");
        assert_eq!(label("a.cafe.orders.shop.peak"), "");
        assert_eq!(label("orders.shop.peak"), "");
        assert_eq!(label("cafe.users.shop.peak"), "");
    }
}
