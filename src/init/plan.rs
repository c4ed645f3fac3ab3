//! What a pod's network is to be: flags in their checked form.

use std::fmt;
use std::ops::RangeInclusive;

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

use super::Args;

/// Traffic that is the sidecar's own. Each that is given exempts.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct Exempt {
    pub(super) user: Option<u32>,
    pub(super) group: Option<u32>,
    pub(super) mark: Option<u32>,
}

/// The sidecar's ports.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct Ports {
    pub(super) outbound: u16,
    pub(super) inbound: u16,
    pub(super) dns: u16,
    pub(super) metrics: u16,
}

/// Everything a pod's network is made from. Only [`Plan::new`] makes one, so its parts fit together.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct Plan {
    pub(super) exempt: Exempt,
    pub(super) ports: Ports,
    pub(super) skip_outbound_ports: Vec<RangeInclusive<u16>>,
    pub(super) skip_inbound_ports: Vec<RangeInclusive<u16>>,
    pub(super) inbound_udp_ports: Vec<RangeInclusive<u16>>,
    pub(super) skip_subnets: Vec<IpNet>,
    pub(super) refuse_quic: Vec<IpNet>,
    pub(super) skip_users: Vec<RangeInclusive<u32>>,
    pub(super) service_prefixes: Vec<Ipv6Net>,
    pub(super) device: String,
    pub(super) stand_in6: Ipv6Net,
    pub(super) stand_in4: Ipv4Net,
}

/// Something that is wrong with the flags, together or one by one.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub(super) enum Fault {
    #[error("--{one}-port and --{other}-port are both {port}: each needs its own")]
    SamePort { one: &'static str, other: &'static str, port: u16 },
    #[error("--{which}-port is 0: the sidecar cannot listen there")]
    PortZero { which: &'static str },
    #[error("{given} has bits after its prefix: {meant} is meant?")]
    HostBits { given: IpNet, meant: IpNet },
    #[error("the service prefix {prefix} overlaps {with}, the stand-in addresses: give one of them another place")]
    ServiceInStandIns { prefix: Ipv6Net, with: Ipv6Net },
    #[error("the service prefix {prefix} holds loopback or link-local addresses, which never leave their link")]
    ServiceNotRoutable { prefix: Ipv6Net },
    #[error("the stand-in addresses {prefix} hold loopback, link-local or multicast addresses")]
    StandInsNotUsable { prefix: IpNet },
    #[error("`{0}` is no name of a network device: 1 to 15 octets, no `/`, no space")]
    DeviceName(String),
}

/// All that is wrong with the flags; never empty.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct Faults(pub(super) Vec<Fault>);

impl std::error::Error for Faults {}

impl fmt::Display for Faults {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0.as_slice() {
            [one] => one.fmt(f),
            several => {
                write!(f, "{} faults in the flags:", several.len())?;
                several.iter().try_for_each(|fault| write!(f, "\n  {fault}"))
            }
        }
    }
}

impl Plan {
    /// The checked form of `args`.
    pub(super) fn new(args: &Args) -> Result<Self, Faults> {
        let plan = Self {
            exempt: Exempt { user: args.uid, group: args.gid, mark: args.mark },
            ports: Ports {
                outbound: args.outbound_port,
                inbound: args.inbound_port,
                dns: args.dns_port,
                metrics: args.metrics_port,
            },
            skip_outbound_ports: args.skip_outbound_ports.clone(),
            skip_inbound_ports: args.skip_inbound_ports.clone(),
            inbound_udp_ports: args.inbound_udp_ports.clone(),
            skip_subnets: args.skip_subnets.clone(),
            refuse_quic: args.refuse_quic.clone(),
            skip_users: args.skip_uids.clone(),
            service_prefixes: args.service_prefixes.clone(),
            device: args.device.clone(),
            stand_in6: args.stand_in6,
            stand_in4: args.stand_in4,
        };
        let faults: Vec<_> =
            [plan.port_faults(), plan.prefix_faults(), plan.device_faults()].into_iter().flatten().collect();
        if faults.is_empty() { Ok(plan) } else { Err(Faults(faults)) }
    }

    fn port_faults(&self) -> Vec<Fault> {
        let Ports { outbound, inbound, dns, metrics } = self.ports;
        let named = [("outbound", outbound), ("inbound", inbound), ("dns", dns), ("metrics", metrics)];
        let zero = named.iter().filter(|(_, port)| *port == 0).map(|(which, _)| Fault::PortZero { which });
        let pairs =
            named.iter().enumerate().flat_map(|(at, one)| named.iter().skip(at + 1).map(move |other| (one, other)));
        let same = pairs.filter(|((_, one), (_, other))| one == other && *one != 0);
        zero.chain(same.map(|((one, port), (other, _))| Fault::SamePort { one, other, port: *port })).collect()
    }

    fn prefix_faults(&self) -> Vec<Fault> {
        let overlap6 = |one: &Ipv6Net, other: &Ipv6Net| one.contains(other) || other.contains(one);
        let overlap4 = |one: &Ipv4Net, other: &Ipv4Net| one.contains(other) || other.contains(one);
        let bound6 = [super::LOOPBACK6, super::LINK_LOCAL6, super::MULTICAST6];
        let bound4 = [super::LOOPBACK4, super::LINK_LOCAL4, super::MULTICAST4];
        let (six, four) = (self.stand_in6, self.stand_in4);
        // Whoever writes one has mistaken the prefix or its length, and would get another one than is meant.
        let given = self.service_prefixes.iter().copied().map(IpNet::from).chain([six.into(), four.into()]);
        let host_bits =
            |given: IpNet| (given != given.trunc()).then(|| Fault::HostBits { given, meant: given.trunc() });
        let mut faults: Vec<_> = given.filter_map(host_bits).collect();
        if bound6.iter().any(|bound| overlap6(bound, &six)) {
            faults.push(Fault::StandInsNotUsable { prefix: six.into() });
        }
        if bound4.iter().any(|bound| overlap4(bound, &four)) {
            faults.push(Fault::StandInsNotUsable { prefix: four.into() });
        }
        for prefix in &self.service_prefixes {
            if overlap6(prefix, &six) {
                faults.push(Fault::ServiceInStandIns { prefix: *prefix, with: six });
            }
            if bound6.iter().any(|bound| overlap6(bound, prefix)) {
                faults.push(Fault::ServiceNotRoutable { prefix: *prefix });
            }
        }
        faults
    }

    fn device_faults(&self) -> Vec<Fault> {
        let name = &self.device;
        let fits = (1..=15).contains(&name.len()) && !name.contains(|c: char| c == '/' || c.is_whitespace());
        (!fits).then(|| Fault::DeviceName(name.clone())).into_iter().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::args;
    use super::*;

    #[test]
    fn every_fault_is_reported() {
        let flags = "--uid 1 --outbound-port 9 --inbound-port 9 --dns-port 0 --service-prefix fd46:554e:1c00::/48 \
                     --stand-in4 127.0.0.0/8 --device a/b";
        let Faults(faults) = Plan::new(&args(flags)).unwrap_err();
        assert_eq!(faults.len(), 5, "{faults:?}");
        assert!(faults.contains(&Fault::PortZero { which: "dns" }));
        assert!(faults.contains(&Fault::SamePort { one: "outbound", other: "inbound", port: 9 }));
    }

    #[test]
    fn a_prefix_with_host_bits_is_refused_and_the_one_that_is_meant_is_named() {
        let Faults(faults) =
            Plan::new(&args("--uid 1 --service-prefix 2001:db8:5::1/64 --stand-in4 240.0.0.1/4")).unwrap_err();
        let texts: Vec<_> = faults.iter().map(ToString::to_string).collect();
        assert_eq!(texts.len(), 2);
        assert!(
            texts[0].contains("2001:db8:5::/64 is meant") && texts[1].contains("240.0.0.0/4 is meant"),
            "{texts:?}"
        );
        assert!(Plan::new(&args("--uid 1 --service-prefix 2001:db8:5::/64")).is_ok());
    }

    #[test]
    fn a_prefix_beside_the_stand_ins_is_fine_and_one_around_them_is_not() {
        assert!(Plan::new(&args("--uid 1 --service-prefix fd46:554e:1c00:1::/64")).is_ok());
        assert!(Plan::new(&args("--uid 1 --service-prefix fd46:554e:1c00::/63")).is_err());
    }
}
