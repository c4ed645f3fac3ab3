//! The DNS server that the application asks, and the stand-ins it answers with.
//!
//! `funicular init` redirects the pod's port 53 here. A name below Peak's zones that offers SSA gets a stand-in address
//! ([`StandIns`]), by which the outbound path knows the service again; any other name there gets what Peak says, looked
//! up by the resolver; everything else passes through to the pod's usual name servers untouched, and what they said is
//! given again while it holds. Where programs are to see addresses themselves, services get [`Computed`] ones.
//!
//! ```text
//!  application ──▶ serve ──▶ answer ─┬─▶ stand-in, computed  a service
//!                                    ├─▶ resolver ──▶ Peak   another name below Peak's zones
//!                                    └─▶ upstream            everything else, octet for octet
//! ```

mod answer;
mod computed;
mod metrics;
mod reverse;
mod serve;
mod stand_ins;
mod upstream;

pub use computed::Computed;
pub use metrics::StubMetrics;
pub use serve::{Parts, Stub};
pub use stand_ins::{BadPools, MOST_STAND_INS, NoStandIn, StandIns};
