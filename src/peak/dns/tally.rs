//! What the workers count, and how a scrape reads it.
//!
//! Each worker counts into cells of its own: plain additions, no lock, no cell that two cores write. A scrape adds
//! the workers' cells up. Names and labels are CoreDNS's with our prefix.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;

use crate::model::zone::Zone;
use crate::ops::metrics::{BYTES, Kind, Registry, SECONDS, Samples};
use crate::wire::dns::{Rcode, Type};

/// The zone of requests that belong to none, in CoreDNS's word.
const NO_ZONE: &str = "dropped";

/// Types counted under their own name; all others are `other`, so that nobody can make the family grow.
const TYPES: [Type; 14] = [
    Type::A,
    Type::NS,
    Type::CNAME,
    Type::SOA,
    Type::PTR,
    Type::MX,
    Type::TXT,
    Type::AAAA,
    Type::SRV,
    Type::APL,
    Type::DS,
    Type::SVCB,
    Type::HTTPS,
    Type::ANY,
];
const OTHER: &str = "other";

/// Codes counted under their own name.
const RCODES: [Rcode; 7] =
    [Rcode::NOERROR, Rcode::FORMERR, Rcode::SERVFAIL, Rcode::NXDOMAIN, Rcode::NOTIMP, Rcode::REFUSED, Rcode::BADVERS];

const FAMILIES: [&str; 2] = ["1", "2"];

/// How a request came.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Proto {
    Udp,
    Tcp,
}

impl Proto {
    const fn label(self) -> &'static str {
        match self {
            Self::Udp => "udp",
            Self::Tcp => "tcp",
        }
    }
}

/// A number that one thread adds to and others read.
#[derive(Debug, Default)]
struct Cell(AtomicU64);

impl Cell {
    #[inline]
    fn add(&self, amount: u64) {
        // One writer: a load and a store need no bus lock.
        self.0.store(self.0.load(Ordering::Relaxed).wrapping_add(amount), Ordering::Relaxed);
    }

    fn read(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

#[derive(Debug)]
struct Spread<const N: usize> {
    ranges: [Cell; N],
    above: Cell,
    sum: Cell,
}

impl<const N: usize> Default for Spread<N> {
    fn default() -> Self {
        Self { ranges: std::array::from_fn(|_| Cell::default()), above: Cell::default(), sum: Cell::default() }
    }
}

impl<const N: usize> Spread<N> {
    #[inline]
    fn add(&self, range: usize, times: u64, sum: u64) {
        self.ranges.get(range).unwrap_or(&self.above).add(times);
        self.sum.add(sum);
    }
}

#[derive(Debug)]
struct ZoneCells {
    zone: String,
    requests: [[Cell; TYPES.len() + 1]; FAMILIES.len()],
    responses: [Cell; RCODES.len() + 1],
}

impl ZoneCells {
    fn new(zone: String) -> Self {
        Self { zone, requests: Default::default(), responses: Default::default() }
    }
}

/// What one worker counts of one protocol.
#[derive(Debug)]
struct Cells {
    proto: Proto,
    zones: Mutex<Vec<Arc<ZoneCells>>>,
    request_bytes: Spread<{ BYTES.len() }>,
    response_bytes: Spread<{ BYTES.len() }>,
    seconds: Spread<{ SECONDS.len() }>,
    silent: Cell,
    limited: Cell,
    unsent: Cell,
}

/// One worker's own counters.
#[derive(Debug)]
pub(super) struct Tally {
    cells: Arc<Cells>,
    /// The zones met so far, by [`Zone::id`]: a worker serves few.
    zones: Vec<(u64, Arc<ZoneCells>)>,
    none: Arc<ZoneCells>,
    /// The zone that the last request was for, which is likely to be the next one's.
    last: Option<(u64, Arc<ZoneCells>)>,
}

/// What is counted about one reply.
#[derive(Clone, Copy, Debug)]
pub(super) struct Counted<'z> {
    pub(super) zone: Option<&'z Zone>,
    pub(super) ipv6: bool,
    pub(super) qtype: u16,
    pub(super) rcode: Rcode,
    /// Octets of the request and of the reply.
    pub(super) octets: (usize, usize),
}

impl Tally {
    /// Counts a request that was answered.
    #[inline]
    pub(super) fn answered(&mut self, counted: &Counted<'_>) {
        let zone = match counted.zone {
            Some(zone) => self.find(zone),
            None => &self.none,
        };
        zone.requests[usize::from(counted.ipv6)][type_index(counted.qtype)].add(1);
        zone.responses[rcode_index(counted.rcode)].add(1);
        let (request, response) = counted.octets;
        self.cells.request_bytes.add(bytes_range(request), 1, request as u64);
        self.cells.response_bytes.add(bytes_range(response), 1, response as u64);
    }

    /// The zone's cells.
    #[inline]
    fn find(&mut self, zone: &Zone) -> &ZoneCells {
        if self.last.as_ref().is_none_or(|(held, _)| *held != zone.id()) {
            self.look_for(zone);
        }
        self.last.as_ref().map_or(&self.none, |(_, cells)| cells)
    }

    #[cold]
    fn look_for(&mut self, zone: &Zone) {
        let id = zone.id();
        let held = self.zones.iter().find(|(held, _)| *held == id).cloned();
        self.last = held.or_else(|| {
            let cells = Arc::new(ZoneCells::new(zone.apex().to_lowercase().to_string()));
            self.cells.zones.lock().push(Arc::clone(&cells));
            self.zones.push((id, Arc::clone(&cells)));
            Some((id, cells))
        });
    }

    /// Counts a request that gets no reply.
    pub(super) fn silent(&self) {
        self.cells.silent.add(1);
    }

    /// Counts an answer that was not sent because its kind went beyond the rate.
    pub(super) fn limited(&self) {
        self.cells.limited.add(1);
    }

    /// Counts a batch: the time from when its requests were here to when its replies had left.
    #[inline]
    pub(super) fn batch(&self, requests: usize, took: Duration, unsent: usize) {
        let seconds = took.as_secs_f64();
        let range = SECONDS.partition_point(|bound| *bound < seconds);
        self.cells.seconds.add(range, requests as u64, took.as_nanos() as u64 * requests as u64);
        self.cells.unsent.add(unsent as u64);
    }
}

/// [`BYTES`] as whole numbers, which compare faster.
const BOUNDS: [u32; BYTES.len()] = {
    let mut bounds = [0; BYTES.len()];
    let mut index = 0;
    while index < bounds.len() {
        bounds[index] = BYTES[index] as u32;
        index += 1;
    }
    bounds
};

/// The index among [`TYPES`] of each type below 66, which is nearly all that are asked for.
const INDEXES: [u8; 66] = {
    let mut indexes = [TYPES.len() as u8; 66];
    let mut index = 0;
    while index < TYPES.len() {
        if (TYPES[index].0 as usize) < indexes.len() {
            indexes[TYPES[index].0 as usize] = index as u8;
        }
        index += 1;
    }
    indexes
};

/// The place of each rcode in [`RCODES`].
const RCODE_INDEXES: [u8; 17] = {
    let mut indexes = [RCODES.len() as u8; 17];
    let mut index = 0;
    while index < RCODES.len() {
        indexes[RCODES[index].0 as usize] = index as u8;
        index += 1;
    }
    indexes
};

#[inline]
fn type_index(qtype: u16) -> usize {
    match INDEXES.get(usize::from(qtype)) {
        Some(index) => usize::from(*index),
        None => TYPES.iter().position(|counted| counted.0 == qtype).unwrap_or(TYPES.len()),
    }
}

#[inline]
fn rcode_index(rcode: Rcode) -> usize {
    RCODE_INDEXES.get(usize::from(rcode.0)).map_or(RCODES.len(), |index| usize::from(*index))
}

#[inline]
fn bytes_range(octets: usize) -> usize {
    /// The first bounds are those of even ranges, but for the last of them, which is a little wider.
    const EVEN: usize = 100;
    const LAST: usize = 5;
    const { assert!(BOUNDS[LAST - 1] as usize == (LAST - 1) * EVEN && BOUNDS[LAST] as usize > LAST * EVEN) };
    if octets <= BOUNDS[LAST] as usize {
        return octets.div_ceil(EVEN).min(LAST);
    }
    BOUNDS.iter().position(|bound| octets <= *bound as usize).unwrap_or(BOUNDS.len())
}

/// The counters of all workers of a server.
#[derive(Clone, Debug, Default)]
pub(crate) struct Tallies(Arc<Mutex<Vec<Arc<Cells>>>>);

impl Tallies {
    /// Counters for one more worker.
    pub(super) fn worker(&self, proto: Proto) -> Tally {
        let none = Arc::new(ZoneCells::new(NO_ZONE.to_owned()));
        let cells = Arc::new(Cells {
            proto,
            zones: Mutex::new(vec![Arc::clone(&none)]),
            request_bytes: Spread::default(),
            response_bytes: Spread::default(),
            seconds: Spread::default(),
            silent: Cell::default(),
            limited: Cell::default(),
            unsent: Cell::default(),
        });
        self.0.lock().push(Arc::clone(&cells));
        Tally { cells, zones: Vec::new(), none, last: None }
    }

    /// Registers the families; `server` is the label's text, such as `dns://:53`.
    pub(crate) fn register(&self, registry: &Registry, server: &str) {
        let counter = |name, help, labels, read: fn(&Self, &str, &mut Samples)| {
            let (tallies, server) = (self.clone(), server.to_owned());
            registry.sampled(name, help, Kind::Counter, labels, move |samples| read(&tallies, &server, samples));
        };
        counter(
            "funicular_dns_requests_total",
            "Requests that were answered, by zone, protocol, address family and type.",
            &["server", "zone", "proto", "family", "type"],
            Self::read_requests,
        );
        counter(
            "funicular_dns_responses_total",
            "Replies, by zone, protocol and code.",
            &["server", "zone", "proto", "rcode"],
            Self::read_responses,
        );
        counter(
            "funicular_dns_silent_total",
            "Messages that got no reply: replies to nobody's question, and less than a header.",
            &["server", "proto"],
            |tallies, server, samples| tallies.read_each(samples, server, |cells| cells.silent.read()),
        );
        counter(
            "funicular_dns_limited_total",
            "Answers not sent because their kind went beyond the rate.",
            &["server", "proto"],
            |tallies, server, samples| tallies.read_each(samples, server, |cells| cells.limited.read()),
        );
        counter(
            "funicular_dns_unsent_total",
            "Replies that the kernel did not take.",
            &["server", "proto"],
            |tallies, server, samples| tallies.read_each(samples, server, |cells| cells.unsent.read()),
        );
        self.register_spreads(registry, server);
    }

    fn register_spreads(&self, registry: &Registry, server: &str) {
        const LABELS: &[&str] = &["server", "proto"];
        let histogram = |name, help, read: fn(&Self, &str, &mut Samples)| {
            let (tallies, server) = (self.clone(), server.to_owned());
            registry.sampled(name, help, Kind::Histogram, LABELS, move |samples| read(&tallies, &server, samples));
        };
        histogram("funicular_dns_request_size_bytes", "Size of requests.", |tallies, server, samples| {
            tallies.read_spreads(samples, server, BYTES, 1.0, |cells| &cells.request_bytes);
        });
        histogram("funicular_dns_response_size_bytes", "Size of replies.", |tallies, server, samples| {
            tallies.read_spreads(samples, server, BYTES, 1.0, |cells| &cells.response_bytes);
        });
        histogram(
            "funicular_dns_request_duration_seconds",
            "From when a batch of requests was read to when its replies had left.",
            |tallies, server, samples| {
                tallies.read_spreads(samples, server, SECONDS, 1e-9, |cells| &cells.seconds);
            },
        );
    }

    fn of(&self, proto: Proto) -> Vec<Arc<Cells>> {
        self.0.lock().iter().filter(|cells| cells.proto == proto).cloned().collect()
    }

    /// The cells of each zone, all workers' together, sorted by zone.
    fn by_zone(&self, proto: Proto) -> Vec<(String, Vec<Arc<ZoneCells>>)> {
        let mut zones: Vec<Arc<ZoneCells>> = Vec::new();
        for cells in self.of(proto) {
            zones.extend(cells.zones.lock().iter().cloned());
        }
        zones.sort_by(|one, other| one.zone.cmp(&other.zone));
        zones.chunk_by(|one, other| one.zone == other.zone).map(|same| (same[0].zone.clone(), same.to_vec())).collect()
    }

    fn read_requests(&self, server: &str, samples: &mut Samples) {
        let names: Vec<String> = TYPES.iter().map(ToString::to_string).chain([OTHER.to_owned()]).collect();
        for proto in [Proto::Udp, Proto::Tcp] {
            for (zone, cells) in self.by_zone(proto) {
                for (family, family_label) in FAMILIES.into_iter().enumerate() {
                    for (index, name) in names.iter().enumerate() {
                        let count: u64 = cells.iter().map(|cells| cells.requests[family][index].read()).sum();
                        if count > 0 {
                            samples.put(&[server, &zone, proto.label(), family_label, name], count as f64);
                        }
                    }
                }
            }
        }
    }

    fn read_responses(&self, server: &str, samples: &mut Samples) {
        let names: Vec<String> = RCODES.iter().map(ToString::to_string).chain([OTHER.to_owned()]).collect();
        for proto in [Proto::Udp, Proto::Tcp] {
            for (zone, cells) in self.by_zone(proto) {
                for (index, name) in names.iter().enumerate() {
                    let count: u64 = cells.iter().map(|cells| cells.responses[index].read()).sum();
                    if count > 0 {
                        samples.put(&[server, &zone, proto.label(), name], count as f64);
                    }
                }
            }
        }
    }

    fn read_each(&self, samples: &mut Samples, server: &str, read: impl Fn(&Cells) -> u64) {
        for proto in [Proto::Udp, Proto::Tcp] {
            let count: u64 = self.of(proto).iter().map(|cells| read(cells)).sum();
            samples.put(&[server, proto.label()], count as f64);
        }
    }

    fn read_spreads<const N: usize>(
        &self,
        samples: &mut Samples,
        server: &str,
        bounds: &[f64],
        unit: f64,
        spread: impl Fn(&Cells) -> &Spread<N>,
    ) {
        for proto in [Proto::Udp, Proto::Tcp] {
            let cells = self.of(proto);
            let total = |read: &dyn Fn(&Spread<N>) -> u64| cells.iter().map(|cells| read(spread(cells))).sum::<u64>();
            let ranges: Vec<(f64, u64)> = bounds
                .iter()
                .enumerate()
                .map(|(index, bound)| (*bound, total(&|spread| spread.ranges[index].read())))
                .collect();
            let sum = total(&|spread| spread.sum.read()) as f64 * unit;
            samples.put_histogram(&[server, proto.label()], &ranges, total(&|spread| spread.above.read()), sum);
        }
    }
}
