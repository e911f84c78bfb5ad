//! The account's transaction numbers (nonces): each given to one transaction, none left out. Pure.
//!
//! A chain takes an account's transactions in the order of their numbers, so one that is missing holds up all above
//! it. A number whose transaction never reached a node is therefore given back; if there are others above it by then
//! it is a gap, which is filled with a transaction of no effect.

use std::collections::{BTreeMap, BTreeSet};

/// The numbers in use, each with what was sent under it.
#[derive(Debug)]
pub(super) struct Numbers<T> {
    next: u64,
    out: BTreeMap<u64, T>,
    gaps: BTreeSet<u64>,
}

impl<T> Numbers<T> {
    /// `next` is the first that nothing was sent under.
    pub(super) fn new(next: u64) -> Self {
        Numbers { next, out: BTreeMap::new(), gaps: BTreeSet::new() }
    }

    /// Takes the next number for what `make` makes with it.
    pub(super) fn take(&mut self, make: impl FnOnce(u64) -> T) -> u64 {
        let number = self.next;
        self.next += 1;
        self.out.insert(number, make(number));
        number
    }

    /// Puts something under a number that is a gap, or was found to be used.
    pub(super) fn put(&mut self, number: u64, what: T) {
        self.gaps.remove(&number);
        self.out.insert(number, what);
        self.next = self.next.max(number + 1);
    }

    /// What was sent under `number` never reached the chain: the number is free again.
    pub(super) fn give_back(&mut self, number: u64) -> Option<T> {
        let what = self.out.remove(&number)?;
        self.gaps.insert(number);
        self.close_up();
        Some(what)
    }

    /// What was sent under `number` is done with, and the number gone for good.
    pub(super) fn finish(&mut self, number: u64) -> Option<T> {
        self.out.remove(&number)
    }

    /// The chain has used all numbers below `count`, by whomever.
    pub(super) fn raise(&mut self, count: u64) {
        self.gaps.retain(|gap| *gap >= count);
        self.next = self.next.max(count);
    }

    /// Numbers that something above waits for.
    pub(super) fn gaps(&self) -> Vec<u64> {
        self.gaps.iter().copied().collect()
    }

    pub(super) fn get_mut(&mut self, number: u64) -> Option<&mut T> {
        self.out.get_mut(&number)
    }

    pub(super) fn iter(&self) -> impl DoubleEndedIterator<Item = (u64, &T)> {
        self.out.iter().map(|(number, what)| (*number, what))
    }

    pub(super) fn iter_mut(&mut self) -> impl Iterator<Item = (u64, &mut T)> {
        self.out.iter_mut().map(|(number, what)| (*number, what))
    }

    pub(super) fn is_empty(&self) -> bool {
        self.out.is_empty() && self.gaps.is_empty()
    }

    /// A gap with nothing above it is no gap: it is what comes next.
    fn close_up(&mut self) {
        while let Some(last) = self.next.checked_sub(1).filter(|last| self.gaps.contains(last)) {
            self.gaps.remove(&last);
            self.next = last;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_number_given_back_is_the_next_one_or_a_gap() {
        let mut numbers = Numbers::new(5);
        let taken: Vec<u64> = (0..4).map(|_| numbers.take(|number| number)).collect();
        assert_eq!(taken, [5, 6, 7, 8]);
        numbers.give_back(6);
        assert_eq!(numbers.gaps(), [6]);
        // The highest ones go back to the end of the row, and take the gap with them.
        numbers.give_back(8);
        numbers.give_back(7);
        assert_eq!(numbers.gaps(), [0; 0]);
        assert_eq!(numbers.take(|number| number), 6);
    }

    #[test]
    fn what_the_chain_used_is_not_used_again() {
        let mut numbers: Numbers<u64> = Numbers::new(5);
        numbers.take(|number| number);
        numbers.take(|number| number);
        numbers.give_back(5);
        numbers.raise(9);
        assert_eq!(numbers.gaps(), [0; 0]);
        assert_eq!(numbers.take(|number| number), 9);
    }

    #[derive(Clone, Debug)]
    enum Step {
        Take,
        GiveBack(usize),
        Finish(usize),
        Fill,
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            3 => Just(Step::Take),
            1 => any::<usize>().prop_map(Step::GiveBack),
            1 => any::<usize>().prop_map(Step::Finish),
            1 => Just(Step::Fill),
        ]
    }

    proptest! {
        /// Every number below the next one was finished, is out, or is a known gap; and no number is given twice.
        #[test]
        fn no_number_is_lost_or_given_twice(steps in proptest::collection::vec(step(), 0..80)) {
            let mut numbers = Numbers::new(0);
            let mut done = BTreeSet::new();
            for step in steps {
                let nth = |numbers: &Numbers<u64>, at: usize| {
                    let out: Vec<u64> = numbers.iter().map(|(number, _)| number).collect();
                    out.get(at % out.len().max(1)).copied()
                };
                match step {
                    Step::Take => {
                        let before: Vec<u64> = numbers.iter().map(|(number, _)| number).collect();
                        let number = numbers.take(|number| number);
                        prop_assert!(!done.contains(&number) && !before.contains(&number));
                    }
                    Step::GiveBack(at) => if let Some(number) = nth(&numbers, at) {
                        numbers.give_back(number);
                    },
                    Step::Finish(at) => if let Some(number) = nth(&numbers, at) {
                        numbers.finish(number);
                        done.insert(number);
                    },
                    Step::Fill => for gap in numbers.gaps() {
                        prop_assert!(!done.contains(&gap));
                        numbers.put(gap, gap);
                    },
                }
                for number in 0..numbers.next {
                    let known = done.contains(&number) || numbers.out.contains_key(&number) || numbers.gaps.contains(&number);
                    prop_assert!(known, "{number} is lost");
                }
            }
        }
    }
}
