//! The rule: its text and what it means (SSA.md §2).

use super::{Space, UnixSeconds};

/// How the caller's token travels.
#[derive(Clone, Copy, Debug, Default, Eq, Hash, PartialEq)]
pub enum TokenMode {
    /// Streams one after another through one TLS connection.
    #[default]
    Tunnel,
    /// A PROXY protocol v2 header behind TLS, then the bytes.
    Pp2,
    /// HTTP header fields, per request.
    Header,
    /// Neither TLS nor a token.
    None,
}

/// Where the content key comes from.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub enum ContentSource {
    /// The path with its leading `/`, without the query.
    #[default]
    Path,
    /// The I-th part of the path, 1 to 255.
    Segment(u8),
    /// The value of a query parameter.
    Query(Box<str>),
    /// The value of a header field.
    Header(Box<str>),
    /// The authority.
    Host,
    /// The first label of the host.
    Label,
}

/// The fields of a rule, in order.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Layout(());

/// Why a rule is left out (SSA.md §1: counted and logged).
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[error("{reason} at {part:?}")]
pub struct MalformedRule {
    /// The part of the text that is wrong.
    pub part: Box<str>,
    /// What was expected instead.
    pub reason: &'static str,
}

/// A rule that fits its space.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Rule {
    text: Box<str>,
}

impl Rule {
    /// Reads a rule and checks that its layout fits the host part of the space's longest prefix.
    ///
    /// # Errors
    /// The first thing in the text that is wrong.
    pub fn parse(_text: &str, _space: &Space) -> Result<Self, MalformedRule> {
        todo!()
    }

    /// The text as it was published.
    #[must_use]
    pub fn text(&self) -> &str {
        &self.text
    }

    /// `token=`.
    #[must_use]
    pub fn token_mode(&self) -> TokenMode {
        todo!()
    }

    /// `content=`.
    #[must_use]
    pub fn content_source(&self) -> &ContentSource {
        todo!()
    }

    /// Whether a field of the layout reads the content key.
    #[must_use]
    pub fn reads_content(&self) -> bool {
        todo!()
    }

    /// `secret=`.
    #[must_use]
    pub fn secret_id(&self) -> Option<&str> {
        todo!()
    }

    /// `replicas=`, 1 to 256.
    #[must_use]
    pub fn replicas(&self) -> u16 {
        todo!()
    }

    /// `gen=`.
    #[must_use]
    pub fn generation(&self) -> u32 {
        todo!()
    }

    /// `from=`.
    #[must_use]
    pub fn from(&self) -> UnixSeconds {
        todo!()
    }

    /// `slices=`, 0 to 128, before it is cut to the host part.
    #[must_use]
    pub fn slice_bits(&self) -> u8 {
        todo!()
    }
}
