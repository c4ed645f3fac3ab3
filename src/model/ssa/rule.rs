//! What a rule says (SSA.md §2). Its text is read by [`parse`](mod@super::parse).

use std::sync::Arc;

use super::keyed_hash::Salt;
use super::layout::{Kind, Layout};
use super::{Space, UnixSeconds, parse};

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

impl TokenMode {
    /// The mode as `token=` writes it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Tunnel => "tunnel",
            Self::Pp2 => "pp2",
            Self::Header => "header",
            Self::None => "none",
        }
    }
}

/// Where the content key comes from.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub enum ContentSource {
    /// The path with its leading `/`, without the query.
    #[default]
    Path,
    /// The I-th part of the path, 1 to 255.
    Segment(u8),
    /// The value of a query parameter, its name compared octet for octet.
    Query(Box<str>),
    /// The value of a header field, its name compared without case.
    Header(Box<str>),
    /// The authority.
    Host,
    /// The first label of the host.
    Label,
}

/// Why a rule is left out (SSA.md §1: counted and logged).
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[error("{reason} at {part:?}")]
pub struct MalformedRule {
    /// The part of the text that is wrong, its first 64 characters when it is longer.
    pub part: Box<str>,
    /// What was expected instead.
    pub reason: &'static str,
}

/// A rule that fits its space.
///
/// Two rules are equal when they say the same in the same words.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Rule {
    pub(super) text: Box<str>,
    pub(super) layout: Layout,
    pub(super) salt: Salt,
    /// Shared, so that an error names it without allocating.
    pub(super) secret_id: Option<Arc<str>>,
    /// 1 to 2³²−1.
    pub(super) step: u32,
    /// 0 to 16.
    pub(super) skew: u8,
    pub(super) content: ContentSource,
    /// 1 to 256.
    pub(super) replicas: u16,
    /// 0 to 128.
    pub(super) slice_bits: u8,
    pub(super) token: TokenMode,
    pub(super) generation: u32,
    pub(super) from: UnixSeconds,
}

impl Rule {
    /// Reads a rule and checks that its layout fits the host part of the space's longest prefix.
    ///
    /// # Errors
    /// The first thing in the text that is wrong.
    pub fn parse(text: &str, space: &Space) -> Result<Self, MalformedRule> {
        parse::rule(text, space)
    }

    /// The text as it was published.
    #[must_use]
    pub fn text(&self) -> &str {
        &self.text
    }

    /// `token=`.
    #[must_use]
    pub fn token_mode(&self) -> TokenMode {
        self.token
    }

    /// `content=`.
    #[must_use]
    pub fn content_source(&self) -> &ContentSource {
        &self.content
    }

    /// Whether a field of the layout reads the content key.
    #[must_use]
    pub fn reads_content(&self) -> bool {
        self.layout.any(|kind| matches!(kind, Kind::Content | Kind::ContentHash))
    }

    /// Whether a field of the layout reads the source address.
    #[must_use]
    pub fn reads_source(&self) -> bool {
        self.layout
            .any(|kind| matches!(kind, Kind::Source { .. } | Kind::SourceHash { .. } | Kind::Hop | Kind::Work { .. }))
    }

    /// Whether a field of the layout changes its value with time.
    #[must_use]
    pub fn reads_time(&self) -> bool {
        self.layout.any(|kind| matches!(kind, Kind::Hop | Kind::Work { .. }))
    }

    /// Whether a field of the layout needs the secret that [`Rule::secret_id`] names.
    #[must_use]
    pub fn needs_secret(&self) -> bool {
        self.layout.any(|kind| matches!(kind, Kind::Hop))
    }

    /// How many zero bits the `work` field asks for, 0 to 64, where there is one.
    ///
    /// Computing then takes about two to that power hashes, at most 16 × 2²⁴ a replica: seconds, which belong on a
    /// thread that may block.
    #[must_use]
    pub fn work_bits(&self) -> Option<u8> {
        self.layout.work().map(|(_, zero_bits)| zero_bits)
    }

    /// `secret=`.
    #[must_use]
    pub fn secret_id(&self) -> Option<&str> {
        self.secret_id.as_deref()
    }

    /// `replicas=`, 1 to 256.
    #[must_use]
    pub fn replicas(&self) -> u16 {
        self.replicas
    }

    /// `gen=`.
    #[must_use]
    pub fn generation(&self) -> u32 {
        self.generation
    }

    /// `from=`.
    #[must_use]
    pub fn from(&self) -> UnixSeconds {
        self.from
    }

    /// `slices=`, 0 to 128, before it is cut to the host part.
    #[must_use]
    pub fn slice_bits(&self) -> u8 {
        self.slice_bits
    }

    /// `step=`: the length of an epoch in seconds, 1 to 2³²−1.
    #[must_use]
    pub fn step(&self) -> u32 {
        self.step
    }

    /// `skew=`: how many epochs before and after the present one a checker accepts, 0 to 16.
    #[must_use]
    pub fn skew(&self) -> u8 {
        self.skew
    }

    /// The epoch that `now` lies in.
    #[must_use]
    pub fn epoch(&self, now: UnixSeconds) -> u64 {
        now.0 / u64::from(self.step)
    }
}
