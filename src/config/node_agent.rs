//! The configuration of the node agent.

use std::net::{Ipv6Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use ipnet::Ipv6Net;

use super::common::{Admin, Log};
use super::section::{choice, section};
use super::values::SocketFile;
use super::{Check, Role};
use crate::model::Name;

/// The least that a device which carries IPv6 may take (RFC 8200 §5).
const LEAST_MTU: u16 = 1_280;

section! {
    /// The configuration of `funicular node`.
    pub struct NodeAgent {
        /// This node's own address, by which the other nodes reach it: they carry strays here.
        address: Ipv6Addr,
        /// The spaces of services whose slices may be routed to pods of this node. Nothing else is, whatever a pod
        /// claims.
        spaces: Vec<Ipv6Net>,
        /// The unix socket at which the sidecars of this node's pods say what they have.
        socket: SocketFile = "/run/funicular/node.sock",
        /// Whose claims are heard.
        pods: Pods,
        /// How other nodes and routers learn where slices are.
        routes: Routes = "bgp",
        /// How long the routes of a pod stay whose sidecar is gone without a word: sidecars and agents come back. Keep it
        /// below two thirds of `slices.lease`: then they are gone before others are given the slices.
        linger: Duration = "3s",
        /// How connections of slices that have moved are carried to the pod that has them.
        carrying: Carrying,
        /// The other agents; for `routes: mesh`.
        mesh: Option<Mesh>,
        /// Where the agent can be asked how it is. None: nowhere.
        admin: Option<Admin>,
        /// What is logged, and how.
        log: Log,
    }
}

section! {
    /// Whose claims are heard. A claim is taken for the pod whose network namespace the process is in.
    pub struct Pods {
        /// The users that sidecars run as.
        users: Vec<u32> = "[7246]",
        /// A part that the process's control group must have in its name. None: any will do.
        cgroup: Option<String>,
    }
}

choice! {
    /// How other nodes and routers learn where slices are.
    pub enum Routes, "bgp or mesh" {
        /// A routing daemon learns the agent's table and announces it.
        Bgp = "bgp",
        /// The agents tell each other, and each writes all slices into its own table.
        Mesh = "mesh",
    }
}

section! {
    /// How connections of slices that have moved are carried to the pod that has them: as UDP between nodes (VXLAN's
    /// generic protocol extension).
    pub struct Carrying {
        /// The name of the device that the agent makes for it.
        device: String = "funicular0",
        /// The UDP port, the same on every node.
        port: u16 = "4790",
        /// The largest packet that is carried: what fits between nodes, less 70 octets.
        mtu: u16 = "1430",
        /// Where the other nodes' own addresses lie; what comes from elsewhere is dropped. None: nothing comes.
        nodes: Vec<Ipv6Net>,
        /// The mark of a stray; the 65,535 marks after it are those of pods. Packets and connections to slices get
        /// them, so nobody else on the node may use them, or mark connections to slices.
        mark: u32 = "0x46550000",
    }
}

section! {
    /// The other agents. Each is called, proves its name by its certificate, and then says what it routes.
    pub struct Mesh {
        /// Where the other agents call.
        listen: SocketAddr = "[::]:7247",
        /// File with this node's certificate chain (PEM).
        certificate: PathBuf,
        /// File with its private key (PEM).
        key: PathBuf,
        /// File with the certificates (PEM) of the authorities that vouch for the nodes' names.
        ca: PathBuf,
        /// The other nodes.
        nodes: Vec<MeshNode>,
    }
}

section! {
    /// Another node.
    pub struct MeshNode {
        /// Where its agent listens.
        address: SocketAddr,
        /// The name that its certificate proves.
        name: Name,
    }
}

impl Role for NodeAgent {
    const COMMAND: &'static str = "node";

    fn check(&self, check: &mut Check<'_>) {
        if self.spaces.is_empty() {
            check.fault(&["spaces"], "name at least one, else no slice may be routed");
        }
        if self.pods.users.is_empty() {
            check.fault(&["pods.users"], "name at least one, else no sidecar is heard");
        }
        if (self.routes == Routes::Mesh) != self.mesh.is_some() {
            check.fault(&["routes", "mesh"], "routes: mesh needs the section mesh, and the section mesh needs it");
        }
        let Carrying { device, port, mtu, mark, nodes } = &self.carrying;
        if device.len() > 15 || device.contains(|c: char| c == '/' || c.is_whitespace()) {
            check.fault(&["carrying.device"], "a device's name has 1 to 15 octets, no `/` and no space");
        }
        if *port == 0 {
            check.fault(&["carrying.port"], "it is at least 1");
        }
        if *mtu < LEAST_MTU {
            check.fault(&["carrying.mtu"], format!("IPv6 needs at least {LEAST_MTU} octets"));
        }
        if mark & 0xffff != 0 || *mark == 0 {
            check.fault(
                &["carrying.mark"],
                "its last 16 bits are 0, for the marks of pods, and the others are not all 0",
            );
        }
        if nodes.is_empty() {
            check
                .remark("carrying.nodes", "no node may carry anything here, so connections to slices that leave break");
        }
    }
}
