//! Judges histories: whether what clients saw could have come from one register that does one thing at a time
//! (linearizability: Herlihy and Wing, 1990).
//!
//! The register is a small set of members, as an RRset is one. Registers are independent of each other, so each is
//! judged alone. An operation without an answer may have happened at any time after it was called, or never.
//!
//! The search is Wing and Gong's with Lowe's memory of where it has been: among the operations that nobody finished
//! before they were called, one must have come first; try each, and never the same place twice.

use std::collections::{BTreeMap, BTreeSet, HashSet};

/// Members of a register, one bit each.
pub(crate) type Members = u64;

/// What a client asked of a register.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub(crate) enum Call {
    /// What is in it?
    Read,
    /// These are in it afterwards, beside what was.
    Add(Members),
    /// These are not in it afterwards.
    Remove(Members),
    /// Nothing but these is in it afterwards.
    Replace(Members),
    /// The same, provided that exactly the first are in it.
    Swap(Members, Members),
}

/// What a client was told.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub(crate) enum Answer {
    /// These were in it.
    Holds(Members),
    /// Done; whether that changed anything.
    Done(bool),
    /// Not done: the condition did not hold.
    Differs,
}

impl Call {
    /// What the call makes of a register that holds `held`.
    pub(crate) fn applied(self, held: Members) -> (Members, Answer) {
        let done = |after: Members| (after, Answer::Done(after != held));
        match self {
            Self::Read => (held, Answer::Holds(held)),
            Self::Add(members) => done(held | members),
            Self::Remove(members) => done(held & !members),
            Self::Replace(members) => done(members),
            Self::Swap(expected, members) if expected == held => done(members),
            Self::Swap(..) => (held, Answer::Differs),
        }
    }
}

/// One call of one client. Times are of one clock that all clients share; only their order counts.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Operation {
    pub(crate) register: u32,
    pub(crate) call: Call,
    pub(crate) called: u64,
    /// When the answer came, and which; none when it never did.
    pub(crate) answered: Option<(u64, Answer)>,
}

/// A history that no single register can have produced.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct Impossible {
    pub(crate) register: u32,
    /// The operations that could be put in an order before the search got stuck, at best.
    pub(crate) explained: usize,
    /// All of the register's operations.
    pub(crate) operations: Vec<Operation>,
}

/// Finds an order for each register's operations; every register starts empty.
///
/// # Errors
/// The first register without one.
pub(crate) fn judge(history: &[Operation]) -> Result<(), Impossible> {
    let mut registers: BTreeMap<u32, Vec<Operation>> = BTreeMap::new();
    for operation in history {
        // Who read and never learnt what, tells nothing.
        if operation.answered.is_some() || operation.call != Call::Read {
            registers.entry(operation.register).or_default().push(*operation);
        }
    }
    registers.into_iter().try_for_each(|(register, mut operations)| {
        operations.sort_by_key(|operation| operation.called);
        let explained = Search::new(&operations).run();
        explained.map_err(|explained| Impossible { register, explained, operations })
    })
}

/// A set of operations, by their place in the history.
#[derive(Clone, Eq, Hash, PartialEq)]
struct Chosen(Box<[u64]>);

impl Chosen {
    fn none(of: usize) -> Self {
        Self(vec![0; of.div_ceil(64)].into())
    }

    fn has(&self, at: usize) -> bool {
        self.0[at / 64] >> (at % 64) & 1 == 1
    }

    fn with(&self, at: usize) -> Self {
        let mut more = self.clone();
        more.0[at / 64] |= 1 << (at % 64);
        more
    }
}

struct Search<'h> {
    operations: &'h [Operation],
    been: HashSet<(Chosen, Members)>,
}

impl<'h> Search<'h> {
    fn new(operations: &'h [Operation]) -> Self {
        Self { operations, been: HashSet::new() }
    }

    /// Whether there is an order; if not, how many answered operations the longest one had.
    fn run(mut self) -> Result<(), usize> {
        let answered = self.operations.iter().filter(|operation| operation.answered.is_some()).count();
        let mut best = 0;
        let mut open = vec![(Chosen::none(self.operations.len()), 0, 0)];
        while let Some((chosen, held, explained)) = open.pop() {
            if explained == answered {
                return Ok(());
            }
            best = best.max(explained);
            for at in self.candidates(&chosen) {
                let operation = self.operations[at];
                let (after, answer) = operation.call.applied(held);
                let explained = match operation.answered {
                    Some((_, told)) if told != answer => continue,
                    Some(_) => explained + 1,
                    // What changes nothing and was never answered need not have happened.
                    None if after == held => continue,
                    None => explained,
                };
                let next = (chosen.with(at), after);
                if self.been.insert(next.clone()) {
                    open.push((next.0, next.1, explained));
                }
            }
        }
        Err(best)
    }

    /// The operations that may come next: called before any of the others that are left was answered.
    fn candidates(&self, chosen: &Chosen) -> Vec<usize> {
        let left = || (0..self.operations.len()).filter(|at| !chosen.has(*at));
        let first_answer = left().filter_map(|at| Some(self.operations[at].answered?.0)).min().unwrap_or(u64::MAX);
        left().take_while(|at| self.operations[*at].called < first_answer).collect()
    }
}

/// Says of each member that was ever acknowledged as added, and that nobody asked to remove, whether it is there.
///
/// # Errors
/// The members that are missing, by register.
pub(crate) fn nothing_lost(
    history: &[Operation],
    held: &BTreeMap<u32, Members>,
) -> Result<(), BTreeSet<(u32, Members)>> {
    let takes = |call: Call| match call {
        Call::Read | Call::Add(_) => 0,
        Call::Remove(members) => members,
        Call::Replace(members) | Call::Swap(_, members) => !members,
    };
    let mut missing = BTreeSet::new();
    for operation in history {
        let Call::Add(members) = operation.call else { continue };
        let acknowledged = matches!(operation.answered, Some((_, Answer::Done(_))));
        let taken: Members = history
            .iter()
            .filter(|other| other.register == operation.register)
            .map(|other| takes(other.call))
            .fold(0, |all, members| all | members);
        let lost = members & !taken & !held.get(&operation.register).copied().unwrap_or(0);
        if acknowledged && lost != 0 {
            missing.insert((operation.register, lost));
        }
    }
    if missing.is_empty() { Ok(()) } else { Err(missing) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn operation(call: Call, called: u64, answered: Option<(u64, Answer)>) -> Operation {
        Operation { register: 1, call, called, answered }
    }

    fn done(call: Call, called: u64, at: u64) -> Operation {
        operation(call, called, Some((at, Answer::Done(true))))
    }

    fn read(held: Members, called: u64, at: u64) -> Operation {
        operation(Call::Read, called, Some((at, Answer::Holds(held))))
    }

    #[test]
    fn one_thing_after_the_other_is_possible() {
        let history = [
            done(Call::Add(1), 0, 1),
            read(1, 2, 3),
            done(Call::Swap(1, 6), 4, 5),
            operation(Call::Swap(1, 9), 6, Some((7, Answer::Differs))),
            operation(Call::Add(2), 8, Some((9, Answer::Done(false)))),
            done(Call::Remove(2), 10, 11),
            done(Call::Replace(3), 12, 13),
            read(3, 14, 15),
        ];
        assert_eq!(judge(&history), Ok(()));
    }

    #[test]
    fn what_overlaps_may_have_come_in_either_order_and_what_does_not_may_not() {
        assert_eq!(judge(&[done(Call::Replace(1), 0, 10), read(0, 1, 9)]), Ok(()));
        assert_eq!(judge(&[done(Call::Replace(1), 0, 10), read(1, 1, 9)]), Ok(()));
        // Answered in the very moment of the call: not before it.
        assert!(judge(&[done(Call::Replace(1), 0, 10), read(0, 10, 11)]).is_err());
        assert!(judge(&[done(Call::Replace(1), 0, 10), read(0, 11, 12)]).is_err());
    }

    #[test]
    fn a_read_of_the_past_is_impossible() {
        let history = [done(Call::Replace(1), 0, 1), done(Call::Replace(2), 2, 3), read(1, 4, 5)];
        let refused = judge(&history).unwrap_err();
        assert_eq!((refused.register, refused.explained, refused.operations.len()), (1, 2, 3));
    }

    #[test]
    fn two_reads_one_after_the_other_do_not_go_back_in_time() {
        let write = done(Call::Replace(1), 0, 100);
        assert_eq!(judge(&[write, read(0, 1, 2), read(1, 3, 4)]), Ok(()));
        assert!(judge(&[write, read(1, 1, 2), read(0, 3, 4)]).is_err());
    }

    #[test]
    fn a_lost_write_is_impossible_and_so_is_one_made_twice() {
        assert!(judge(&[done(Call::Add(1), 0, 1), read(0, 2, 3)]).is_err());
        // The set was emptied in between, and the retry of an old request has come back to fill it.
        let history = [done(Call::Add(1), 0, 1), done(Call::Remove(1), 2, 3), read(1, 4, 5)];
        assert!(judge(&history).is_err());
        assert!(judge(&[done(Call::Add(1), 0, 1), done(Call::Add(1), 2, 3)]).is_err(), "both cannot have changed it");
    }

    #[test]
    fn of_two_that_swap_from_the_same_start_one_loses() {
        let both = [done(Call::Swap(0, 1), 0, 10), done(Call::Swap(0, 2), 0, 10)];
        assert!(judge(&both).is_err());
        let one = [both[0], operation(Call::Swap(0, 2), 0, Some((10, Answer::Differs)))];
        assert_eq!(judge(&one), Ok(()));
    }

    #[test]
    fn what_was_never_answered_may_have_happened_late_or_never_but_not_early() {
        let unanswered = operation(Call::Replace(1), 5, None);
        assert_eq!(judge(&[unanswered, read(0, 6, 7), read(0, 8, 9)]), Ok(()));
        assert_eq!(judge(&[unanswered, read(0, 6, 7), read(1, 8, 9)]), Ok(()));
        assert!(judge(&[unanswered, read(1, 6, 7), read(0, 8, 9)]).is_err());
        assert!(judge(&[read(1, 3, 4), unanswered]).is_err());
        assert_eq!(judge(&[operation(Call::Read, 0, None)]), Ok(()));
    }

    #[test]
    fn registers_are_judged_one_by_one() {
        let other = Operation { register: 2, ..read(0, 2, 3) };
        assert_eq!(judge(&[done(Call::Add(1), 0, 1), other]), Ok(()));
        assert_eq!(judge(&[other, done(Call::Add(1), 0, 1), read(0, 2, 3)]).unwrap_err().register, 1);
    }

    #[test]
    fn many_calls_at_once_are_judged_without_trying_every_order() {
        // 60 writers and readers that all overlap: 60! orders, and no two of the same state and set are tried twice.
        let writers = (0..60).map(|bit| done(Call::Add(1 << bit), 0, 1_000));
        let mut history: Vec<Operation> = writers.collect();
        history.push(read((1 << 60) - 1, 1_001, 1_002));
        assert_eq!(judge(&history), Ok(()));
    }

    #[test]
    fn an_acknowledged_addition_that_nobody_removed_must_be_there() {
        let history = [done(Call::Add(1), 0, 1), done(Call::Add(2), 0, 1), operation(Call::Add(4), 0, None)];
        assert_eq!(nothing_lost(&history, &BTreeMap::from([(1, 3)])), Ok(()));
        assert_eq!(nothing_lost(&history, &BTreeMap::from([(1, 1)])), Err(BTreeSet::from([(1, 2)])));
        let removed = [history[0], done(Call::Remove(1), 2, 3)];
        assert_eq!(nothing_lost(&removed, &BTreeMap::new()), Ok(()));
    }
}
