//! The name servers that the system is set up to use (resolv.conf(5)).

use std::net::SocketAddr;
use std::sync::Arc;

use hickory_resolver::config::ResolverConfig;
use hickory_resolver::net::NetError;
use hickory_resolver::system_conf::{parse_resolv_conf, read_system_conf};

/// `/etc/resolv.conf` gives no name server.
#[derive(Clone, Debug, thiserror::Error)]
#[error("no name server in /etc/resolv.conf: {cause}; give dns.upstream")]
pub struct NoSystemServers {
    /// What the reader says.
    #[source]
    cause: Arc<NetError>,
}

/// The servers of `/etc/resolv.conf`, in its order.
///
/// # Errors
/// When the file cannot be read or names no server.
pub fn system_servers() -> Result<Vec<SocketAddr>, NoSystemServers> {
    read_system_conf().map(|(config, _)| addresses(&config)).map_err(unusable)
}

/// The servers that the text of a resolv.conf names, in its order, on port 53.
///
/// # Errors
/// When it names none.
pub fn servers_of(resolv_conf: &str) -> Result<Vec<SocketAddr>, NoSystemServers> {
    parse_resolv_conf(resolv_conf).map(|(config, _)| addresses(&config)).map_err(unusable)
}

fn addresses(config: &ResolverConfig) -> Vec<SocketAddr> {
    config.name_servers().iter().map(|server| SocketAddr::new(server.ip, 53)).collect()
}

fn unusable(cause: NetError) -> NoSystemServers {
    NoSystemServers { cause: Arc::new(cause) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_server_of_a_resolv_conf_is_found_in_order() {
        let text = "search default.svc.cluster.local svc.cluster.local\nnameserver 10.96.0.10\noptions ndots:5\n\
                    nameserver 2001:db8::53\n";
        let servers = servers_of(text).unwrap();
        assert_eq!(servers, ["10.96.0.10:53".parse().unwrap(), "[2001:db8::53]:53".parse().unwrap()]);
    }

    #[test]
    fn a_resolv_conf_without_a_name_server_says_what_to_do() {
        let error = servers_of("search shop.example\n").unwrap_err();
        assert!(error.to_string().contains("dns.upstream"), "{error}");
    }
}
