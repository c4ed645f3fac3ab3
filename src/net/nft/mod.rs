//! Packet rules: one nftables table of our own, written and read back over netlink, without the `nft` program.
//!
//! A [`Table`] says what is wanted in the words of nft(8), and prints as what `nft -f` takes. To reach the kernel it is
//! lowered to the kernel's own terms (`lower`: sets of bytes, rules as lists of expressions), and those are encoded as
//! netlink messages (`message`). What the kernel lists is decoded to the same terms, so "in place" is plain equality.
//!
//! ```text
//! Table ──Display──▶ nft text
//!   │
//!   └──lower──▶ Lowered ──message::replace──▶ one batch ──socket──▶ kernel
//!                  ▲                                                  │
//!                  └────────────message::read────────────◀── dumps ───┘
//! ```
//!
//! Invariant: a change is one batch, which the kernel takes whole or not at all.
//!
//! Source: linux/netfilter/nf_tables.h and nfnetlink.h; nft(8).

mod attributes;
mod expression;
mod lower;
mod message;
mod ruleset;
mod socket;

use std::fmt;
use std::io;

pub use ruleset::{Chain, Elements, Hook, Kind, Match, Rule, Set, Table, Verdict};

use lower::Lowered;
use socket::Nfnetlink;

/// Why the packet rules could not be read or changed. Nothing has changed then.
#[derive(Debug, thiserror::Error)]
pub enum NftError {
    /// The kernel has no nf_tables at all.
    #[error(
        "this kernel has no nf_tables ({0}): load the module nf_tables on the node, or use `--backend iptables` where \
         the kernel has legacy iptables"
    )]
    NoNfTables(io::Error),
    /// The kernel has nf_tables without a part that we need.
    #[error(
        "this kernel cannot {attempted} ({answer}): it needs Linux 5.2 and the modules nft_chain_nat, nft_redir and \
         nft_reject_inet; load them on the node, or use `--backend iptables`"
    )]
    Unsupported {
        /// The `nft` command that would do the same.
        attempted: String,
        /// What the kernel said.
        answer: io::Error,
    },
    /// The caller lacks CAP_NET_ADMIN in this namespace.
    #[error(
        "may not read or change packet rules: CAP_NET_ADMIN is missing; run as root, or give the container that capability"
    )]
    NotPermitted,
    /// The kernel said no.
    #[error("the kernel refuses to {attempted}: {answer}")]
    Refused {
        /// The `nft` command that would do the same.
        attempted: String,
        /// What the kernel said.
        answer: io::Error,
    },
    /// Netlink failed underneath.
    #[error("netlink failed: {0}")]
    Socket(io::Error),
    /// The rules changed under every attempt to read them.
    #[error("the packet rules keep changing while they are read: something else rewrites them without pause")]
    Unsettled,
    /// The kernel ended the answer early.
    #[error("the kernel's answer about packet rules is cut short")]
    Truncated,
}

/// How the rules in the kernel differ from those wanted. The first difference found.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Difference {
    /// The table is not there.
    NoTable,
    /// The sets are not those wanted, or one has other elements.
    Sets,
    /// The chains are not those wanted, or hook in elsewhere.
    Chains,
    /// A rule of this chain is missing, changed or added; counted from 1.
    Rule {
        /// The chain.
        chain: String,
        /// The first rule that differs.
        number: usize,
    },
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoTable => f.write_str("the table is missing"),
            Self::Sets => f.write_str("the sets differ"),
            Self::Chains => f.write_str("the chains differ"),
            Self::Rule { chain, number } => write!(f, "rule {number} of chain {chain} differs"),
        }
    }
}

/// Puts `table` in place of whatever table has its name, in one transaction, in the calling thread's namespace.
///
/// # Errors
/// [`NftError`]; the rules are as they were.
pub fn replace(table: &Table) -> Result<(), NftError> {
    let lowered = Lowered::from(table);
    Nfnetlink::open()?.transact(message::replace(&table.name, &lowered))
}

/// Whether there is a table called `name`.
///
/// # Errors
/// [`NftError`].
pub fn exists(name: &str) -> Result<bool, NftError> {
    Nfnetlink::open()?.has_table(name)
}

/// Removes the table called `name` if there is one; says whether there was.
///
/// # Errors
/// [`NftError`]; the rules are as they were.
pub fn remove(name: &str) -> Result<bool, NftError> {
    let mut kernel = Nfnetlink::open()?;
    if !kernel.has_table(name)? {
        return Ok(false);
    }
    kernel.transact(message::remove(name))?;
    Ok(true)
}

/// Compares the kernel's rules with `table`: nothing when they are the same.
///
/// # Errors
/// [`NftError`].
pub fn difference(table: &Table) -> Result<Option<Difference>, NftError> {
    let Some(found) = Nfnetlink::open()?.read(&table.name)? else { return Ok(Some(Difference::NoTable)) };
    Ok(Lowered::from(table).difference(&found))
}
