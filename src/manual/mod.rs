//! The manual. Each chapter is a Markdown file beside this one, readable there and here.
//!
//! | chapter | for whom |
//! |---|---|
//! | [`architecture`] | who wants to change Funicular, or to know how a call travels |
//! | [`addressing`] | who publishes a service: spaces and rules |
//! | [`slices`] | who decides how many slices a service has, or asks why they move |
//! | [`ssa`] | who writes another program that computes or checks addresses |
//! | [`init`] | who prepares a pod's network |
//! | [`kubernetes`] | who runs it on Kubernetes |
//! | [`configuration`] | who writes the YAML |
//! | [`operations`] | who runs it |
//! | [`observability`] | who watches it |
//! | [`performance`] | who asks how fast it is, and wants to measure it |
//! | [`threats`] | who must trust it |
//! | [`api`] | who changes records, by command or by program |
//! | [`zones`] | who changes zones, or runs Peak beside other name servers |
//! | [`tunnel`] | who wants to speak it, or to know what a call costs |
//! | [`registry`] | who runs several Peak nodes that hold the same zones |
//! | [`http`] | who runs HTTP in `header` mode, or calls by content |
//! | [`node`] | who runs nodes, or their routing |
//! | [`decisions`] | who asks why |

#[doc = include_str!("addressing.md")]
pub mod addressing {}
#[doc = include_str!("api.md")]
pub mod api {}
#[doc = include_str!("architecture.md")]
pub mod architecture {}
#[doc = include_str!("configuration.md")]
pub mod configuration {}
#[doc = include_str!("decisions.md")]
pub mod decisions {}
#[doc = include_str!("http.md")]
pub mod http {}
#[doc = include_str!("init.md")]
pub mod init {}
#[doc = include_str!("kubernetes.md")]
pub mod kubernetes {}
#[doc = include_str!("node.md")]
pub mod node {}
#[doc = include_str!("observability.md")]
pub mod observability {}
#[doc = include_str!("operations.md")]
pub mod operations {}
#[doc = include_str!("performance.md")]
pub mod performance {}
#[doc = include_str!("registry.md")]
pub mod registry {}
#[doc = include_str!("slices.md")]
pub mod slices {}
#[doc = include_str!("ssa.md")]
pub mod ssa {}
#[doc = include_str!("threats.md")]
pub mod threats {}
#[doc = include_str!("tunnel.md")]
pub mod tunnel {}
#[doc = include_str!("zones.md")]
pub mod zones {}
