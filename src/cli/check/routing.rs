//! Whether BIRD, beside the node agent, has its BGP sessions: asked at its control socket, as `birdc` does.

use std::path::Path;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::time::timeout;

use super::findings::Finding;

/// BIRD answers from memory.
const PATIENCE: Duration = Duration::from_secs(3);
/// Longer than what it says of a thousand sessions.
const LONGEST: u64 = 1 << 20;
const CHECK: &str = "bgp-up";

pub(super) async fn bgp(socket: &Path) -> Finding {
    if !socket.exists() {
        let seen = format!("there is no {}", socket.display());
        return Finding::skipped(CHECK, seen, "on a node with BIRD, say where its control socket is: --bird SOCKET");
    }
    match timeout(PATIENCE, ask(socket)).await {
        Ok(Ok(told)) => judge(&told),
        Ok(Err(error)) => {
            Finding::wrong(CHECK, error.to_string(), "start BIRD, or run this as somebody who may ask it")
        }
        Err(_) => Finding::wrong(CHECK, "BIRD does not answer", "look at its log"),
    }
}

async fn ask(socket: &Path) -> std::io::Result<String> {
    let mut stream = UnixStream::connect(socket).await?;
    stream.write_all(b"show protocols\n").await?;
    let mut told = Vec::new();
    let mut limited = stream.take(LONGEST);
    // After the greeting (0001) an answer ends with a line whose code is 0000.
    while !String::from_utf8_lossy(&told).lines().any(|line| line.starts_with("0000 ") || line == "0000") {
        if limited.read_buf(&mut told).await? == 0 {
            break;
        }
    }
    Ok(String::from_utf8_lossy(&told).into_owned())
}

/// Lines such as ` upstream   BGP        slices     up     12:00:01.123  Established`, the first after a code.
fn judge(told: &str) -> Finding {
    let sessions = told.lines().filter_map(|line| {
        let words: Vec<&str> =
            line.trim_start_matches(|c: char| c.is_ascii_digit() || c == '-').split_whitespace().collect();
        (words.get(1) == Some(&"BGP")).then(|| (words[0], words.contains(&"Established")))
    });
    let (up, down): (Vec<_>, Vec<_>) = sessions.partition(|(_, established)| *established);
    if up.is_empty() && down.is_empty() {
        return Finding::wrong(
            CHECK,
            "BIRD has no BGP session",
            "deploy/overlays/bgp has a configuration to begin with",
        );
    }
    let names: Vec<&str> = down.iter().map(|(name, _)| *name).collect();
    if names.is_empty() {
        return Finding::right(CHECK, format!("{} sessions established", up.len()));
    }
    let seen = format!("not established: {}", names.join(", "));
    Finding::wrong(CHECK, seen, "`birdc show protocols all` says why; addresses and AS numbers must fit the router's")
}

#[cfg(test)]
mod tests {
    use super::*;

    const TOLD: &str = "0001 BIRD 2.0.12 ready.\n2002-Name       Proto      Table      State  Since         Info\n\
        1002-device1    Device     ---        up     12:00:00.000  \n \
        upstream   BGP        ---        up     12:00:01.123  Established   \n0000 \n";

    #[test]
    fn sessions_are_told_apart_from_other_protocols_and_by_their_state() {
        assert_eq!(judge(TOLD), Finding::right(CHECK, "1 sessions established"));
        let down = judge(&TOLD.replace("up     12:00:01.123  Established", "start  12:00:01.123  Active"));
        assert_eq!(
            down,
            Finding::wrong(
                CHECK,
                "not established: upstream",
                "`birdc show protocols all` says why; addresses and AS numbers must fit the router's"
            )
        );
        assert!(judge("0001 BIRD 2.0.12 ready.\n0000 \n") != down);
    }
}
