//! A service's space as a bar: who owns what, what is changing hands.

use serde::Deserialize;

/// Cells in a row of the bar.
const WIDTH: u32 = 64;
/// Rows at most; a cell stands for more than one slice where there are more.
const ROWS: u32 = 4;
/// Colours that neighbours can be told apart by, of the terminal's 256.
const COLOURS: [u8; 12] = [27, 208, 34, 129, 220, 38, 160, 106, 201, 94, 51, 244];

/// What Peak shows.
#[derive(Debug, Deserialize)]
pub(super) struct Shown {
    pub(super) services: Vec<Service>,
}

/// One service.
#[derive(Debug, Deserialize)]
pub(super) struct Service {
    pub(super) service: String,
    pub(super) prefixes: Vec<String>,
    pub(super) slices: u32,
    pub(super) pods: Vec<Pod>,
    /// First slice, number of slices, owner.
    pub(super) owners: Vec<(u32, u32, Option<u64>)>,
    pub(super) handovers: Vec<Handover>,
    pub(super) pins: Vec<Pin>,
    /// Slices that bear much, the hottest first: which, and connections of late. Peak's leader alone knows any.
    pub(super) hot: Vec<(u32, u32)>,
}

/// One pod.
#[derive(Debug, Deserialize)]
pub(super) struct Pod {
    pub(super) pod: u64,
    pub(super) name: String,
    pub(super) address: String,
    pub(super) weight: u32,
    pub(super) draining: bool,
    pub(super) slices: u32,
    pub(super) prefixes: u32,
}

/// Slices that change hands.
#[derive(Debug, Deserialize)]
pub(super) struct Handover {
    pub(super) id: u64,
    pub(super) from: Option<u64>,
    pub(super) to: u64,
    pub(super) why: String,
    pub(super) step: String,
    pub(super) waits: Option<String>,
    /// First slice and number of slices of each.
    pub(super) blocks: Vec<(u32, u32)>,
}

/// Slices that stay.
#[derive(Debug, Deserialize)]
pub(super) struct Pin {
    pub(super) first: u32,
    pub(super) slices: u32,
    pub(super) pod: u64,
}

/// The service as text for reading.
pub(super) fn service(service: &Service, coloured: bool) -> String {
    let mut text = format!(
        "{}  {}  {} slices  {} pods  {} handovers\n\n",
        service.service,
        service.prefixes.join(" "),
        service.slices,
        service.pods.len(),
        service.handovers.len(),
    );
    text += &bar(service, coloured);
    text += &pods(service, coloured);
    text += &handovers(service);
    for &(slice, connections) in &service.hot {
        let run = service.owners.iter().find(|(first, count, _)| (*first..first + count).contains(&slice));
        let owner = name(service, run.and_then(|&(_, _, owner)| owner));
        text += &format!("hot     slice {slice} at {owner}  {connections} connections of late\n");
    }
    for pin in &service.pins {
        text += &format!("pinned  {} from {} to {}\n", pin.slices, pin.first, name(service, Some(pin.pod)));
    }
    text
}

/// The mark of a pod: letters, again from the first when there are no more.
fn mark(service: &Service, pod: u64) -> char {
    let at = service.pods.iter().position(|one| one.pod == pod);
    let letters = || ('a'..='z').chain('A'..='Z').chain('0'..='9');
    at.and_then(|at| letters().nth(at % 62)).unwrap_or('?')
}

fn painted(mark: char, pod: Option<u64>, coloured: bool) -> String {
    match pod.filter(|_| coloured) {
        Some(pod) => format!("\x1b[48;5;{}m\x1b[30m{mark}\x1b[0m", COLOURS[(pod % COLOURS.len() as u64) as usize]),
        None => mark.to_string(),
    }
}

/// Rows of cells, each the mark of who owns most of it; `~` where something is on its way, `*` where something is hot, `.`
/// where nobody owns it.
fn bar(service: &Service, coloured: bool) -> String {
    let cells = service.slices.min(WIDTH * ROWS);
    let mut text = String::new();
    for cell in 0..cells {
        let bounds = |cell: u32| (u64::from(cell) * u64::from(service.slices) / u64::from(cells)) as u32;
        let (first, end) = (bounds(cell), bounds(cell + 1));
        let inside = |at: u32, count: u32| (at + count).min(end).saturating_sub(at.max(first));
        let most = service.owners.iter().max_by_key(|(at, count, _)| inside(*at, *count));
        let owner = most.and_then(|&(_, _, owner)| owner);
        let moving = service.handovers.iter().flat_map(|handover| &handover.blocks);
        let moves = moving.into_iter().any(|&(at, count)| inside(at, count) > 0);
        let hot = service.hot.iter().any(|&(slice, _)| inside(slice, 1) > 0);
        let mark = match owner {
            _ if moves => '~',
            _ if hot => '*',
            Some(owner) => mark(service, owner),
            None => '.',
        };
        if cell % WIDTH == 0 {
            text += if cell > 0 { "\n  " } else { "  " };
        }
        text += &painted(mark, owner, coloured);
    }
    text + "\n\n"
}

fn pods(service: &Service, coloured: bool) -> String {
    let names = service.pods.iter().map(|pod| pod.name.len()).max().unwrap_or(0).max(4);
    let mut text = format!("     {:names$}   pod  slices   share  prefixes  weight  address\n", "name");
    for pod in &service.pods {
        let share = 100.0 * f64::from(pod.slices) / f64::from(service.slices);
        text += &format!(
            "  {}  {:names$}  {:>4}  {:>6}  {share:>5.1}%  {:>8}  {:>6}  {}{}\n",
            painted(mark(service, pod.pod), Some(pod.pod), coloured),
            pod.name,
            pod.pod,
            pod.slices,
            pod.prefixes,
            pod.weight,
            pod.address,
            if pod.draining { "  draining" } else { "" },
        );
    }
    text + "\n"
}

fn name(service: &Service, pod: Option<u64>) -> String {
    let Some(pod) = pod else { return "nobody".to_owned() };
    service.pods.iter().find(|one| one.pod == pod).map_or_else(|| pod.to_string(), |one| one.name.clone())
}

fn handovers(service: &Service) -> String {
    let mut text = String::new();
    for handover in &service.handovers {
        let slices: u32 = handover.blocks.iter().map(|(_, count)| count).sum();
        text += &format!(
            "  #{} {} -> {}  {slices} slices  {}  {}{}\n",
            handover.id,
            name(service, handover.from),
            name(service, Some(handover.to)),
            handover.why,
            handover.step,
            handover.waits.as_ref().map(|why| format!("  waits: {why}")).unwrap_or_default(),
        );
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown() -> Service {
        let pod = |pod, name: &str, slices| Pod {
            pod,
            name: name.to_owned(),
            address: "[fd00::1]:15006".to_owned(),
            weight: 1,
            draining: false,
            slices,
            prefixes: 1,
        };
        Service {
            service: "orders.shop.peak.".to_owned(),
            prefixes: vec!["2001:db8:5:1::/64".to_owned()],
            slices: 8,
            pods: vec![pod(1, "orders-1", 4), pod(2, "orders-2", 3)],
            owners: vec![(0, 4, Some(1)), (4, 3, Some(2)), (7, 1, None)],
            handovers: vec![Handover {
                id: 9,
                from: Some(1),
                to: 2,
                why: "balance".to_owned(),
                step: "routed".to_owned(),
                waits: None,
                blocks: vec![(3, 1)],
            }],
            pins: Vec::new(),
            hot: vec![(5, 90), (3, 40)],
        }
    }

    #[test]
    fn the_bar_marks_owners_what_moves_what_is_hot_and_what_nobody_owns() {
        assert_eq!(bar(&shown(), false), "  aaa~b*b.\n\n");
        assert!(bar(&shown(), true).contains("\x1b[48;5;208m\x1b[30ma\x1b[0m"));
    }

    #[test]
    fn many_slices_share_a_cell_and_rows_are_bounded() {
        let mut many = shown();
        (many.slices, many.owners, many.handovers) = (1 << 14, vec![(0, 1 << 14, Some(2))], Vec::new());
        many.hot.clear();
        let bar = bar(&many, false);
        assert_eq!(bar.lines().filter(|line| line.trim().len() == WIDTH as usize).count(), ROWS as usize);
        assert!(bar.split_whitespace().all(|row| row.chars().all(|mark| mark == 'b')));
    }

    #[test]
    fn pods_handovers_and_hot_slices_are_listed_by_name() {
        let text = service(&shown(), false);
        assert!(text.contains("  a  orders-1     1       4   50.0%"), "{text}");
        assert!(text.contains("hot     slice 5 at orders-2  90 connections of late\n"), "{text}");
        assert!(text.contains("  #9 orders-1 -> orders-2  1 slices  balance  routed\n"), "{text}");
    }
}
