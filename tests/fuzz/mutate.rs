//! Inputs from a seed: numbers, and mutations of what is kept.

/// A generator of numbers that a seed determines (SplitMix64).
#[derive(Clone, Debug)]
pub(crate) struct Numbers(u64);

impl Numbers {
    /// The numbers of input `index` of a target's run.
    pub(crate) fn of(seed: u64, target: &str, index: u64) -> Self {
        // FNV-1a: targets that share a seed and a corpus do not share inputs.
        let target = target
            .bytes()
            .fold(0xcbf2_9ce4_8422_2325, |hash: u64, octet| (hash ^ u64::from(octet)).wrapping_mul(0x0100_0000_01b3));
        let mut numbers = Self(seed ^ target.rotate_left(17));
        numbers.0 = numbers.next().wrapping_add(index.wrapping_mul(0xd6e8_feb8_6659_fd93));
        numbers
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut word = self.0;
        word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        word ^ (word >> 31)
    }

    /// A number below `end`; 0 when there is none.
    pub(crate) fn below(&mut self, end: usize) -> usize {
        if end == 0 { 0 } else { (self.next() % end as u64) as usize }
    }

    pub(crate) fn octet(&mut self) -> u8 {
        self.next() as u8
    }

    /// Whether the one case of so many has come.
    pub(crate) fn one_in(&mut self, cases: usize) -> bool {
        self.below(cases) == 0
    }

    pub(crate) fn pick<'a, T>(&mut self, from: &'a [T]) -> &'a T {
        &from[self.below(from.len())]
    }
}

/// The longest input.
const LONGEST: usize = 65_535;

/// Octets at which parsers turn: ends of label lengths, pointers, signs, quotes, escapes.
const OCTETS: [u8; 18] =
    [0, 1, 2, 0x0a, 0x22, 0x28, 0x29, 0x3b, 0x3f, 0x40, 0x5c, 0x7f, 0x80, 0xbf, 0xc0, 0xc1, 0xfe, 0xff];

/// Numbers of two octets that mean something to DNS: types, classes, sizes, option codes, ends of ranges.
const WORDS: [u16; 29] = [
    0, 1, 2, 5, 6, 10, 12, 15, 16, 28, 33, 39, 41, 42, 64, 65, 250, 251, 252, 254, 255, 511, 512, 1232, 0x7fff, 0x8000,
    0xc00c, 0xfff5, 0xffff,
];

/// An input: something kept, changed in a few places; rarely octets without any plan.
pub(crate) fn input(numbers: &mut Numbers, corpus: &[Vec<u8>]) -> Vec<u8> {
    if numbers.one_in(64) {
        return (0..numbers.below(600)).map(|_| numbers.octet()).collect();
    }
    let mut octets = numbers.pick(corpus).clone();
    let doublings = numbers.below(4);
    let changes = 1 + numbers.below(1 << doublings);
    for _ in 0..changes {
        change(numbers, &mut octets, corpus);
    }
    octets.truncate(LONGEST);
    octets
}

/// One change.
pub(crate) fn change(numbers: &mut Numbers, octets: &mut Vec<u8>, corpus: &[Vec<u8>]) {
    let at = numbers.below(octets.len());
    match numbers.below(12) {
        _ if octets.is_empty() => octets.push(numbers.octet()),
        0 => octets[at] ^= 1 << numbers.below(8),
        1 => octets[at] = numbers.octet(),
        2 => octets[at] = *numbers.pick(&OCTETS),
        3 => overwrite(octets, at, &numbers.pick(&WORDS).to_be_bytes()),
        4 => octets[at] = octets[at].wrapping_add(numbers.below(5) as u8).wrapping_sub(2),
        5 => octets.truncate(at),
        6 => drop(octets.drain(at..(at + 1 + numbers.below(16)).min(octets.len()))),
        7 => insert(octets, at, &[*numbers.pick(&OCTETS)]),
        8 => {
            // A part of itself once more, perhaps often.
            let end = (at + 1 + numbers.below(32)).min(octets.len());
            let doublings = numbers.below(7);
            let part = octets[at..end].repeat(1 + numbers.below(1 << doublings));
            insert(octets, end, &part);
        }
        9 => {
            // A compression pointer, mostly backwards.
            let to = numbers.below(octets.len().min(0x3fff) + 2) as u16;
            overwrite(octets, at, &(0xc000 | to).to_be_bytes());
        }
        10 => {
            // The beginning of one, the end of another.
            let other = numbers.pick(corpus);
            octets.truncate(at);
            octets.extend_from_slice(&other[numbers.below(other.len() + 1).min(other.len())..]);
        }
        _ => {
            let other = numbers.pick(corpus);
            let from = numbers.below(other.len());
            let end = (from + 1 + numbers.below(40)).min(other.len());
            insert(octets, at, &other[from.min(end)..end]);
        }
    }
}

fn overwrite(octets: &mut [u8], at: usize, with: &[u8]) {
    for (octet, with) in octets[at..].iter_mut().zip(with) {
        *octet = *with;
    }
}

fn insert(octets: &mut Vec<u8>, at: usize, part: &[u8]) {
    if octets.len() + part.len() <= LONGEST {
        octets.splice(at..at, part.iter().copied());
    }
}
