//! The small values that this process wrote a moment ago, for a server that may forget them: what a request is called, what price
//! was shown. Where one was written over another it is only of use if none is left.

use std::collections::{HashSet, VecDeque};
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use super::reassert::RECENT;

/// How much memory they may take, about. The oldest go first.
const SIZE: usize = 8 << 20;

#[derive(Default)]
pub(super) struct Values(Mutex<All>);

#[derive(Default)]
struct All {
    /// Oldest first.
    said: VecDeque<Said>,
    size: usize,
}

/// A value, as it was written.
#[derive(Clone)]
pub(super) struct Said {
    pub(super) space: String,
    pub(super) key: String,
    pub(super) value: Vec<u8>,
    ttl: Option<Duration>,
    at: Instant,
}

impl Said {
    /// How long it is to last from now on; `None`: it does not any more.
    pub(super) fn left(&self) -> Option<Option<Duration>> {
        match self.ttl {
            None => Some(None),
            Some(ttl) => ttl.checked_sub(self.at.elapsed()).filter(|left| !left.is_zero()).map(Some),
        }
    }

    fn size(&self) -> usize {
        size_of::<Said>() + self.space.len() + self.key.len() + self.value.len()
    }
}

impl Values {
    pub(super) fn said(&self, (space, key): (&str, &str), value: &[u8], ttl: Option<Duration>) {
        let (space, key, value) = (space.to_owned(), key.to_owned(), value.to_vec());
        let said = Said { space, key, value, ttl, at: Instant::now() };
        let mut all = self.0.lock();
        all.size += said.size();
        all.said.push_back(said);
        all.keep(|_, size| size <= SIZE);
    }

    /// Those of longer ago are forgotten.
    pub(super) fn tidy(&self) {
        self.0.lock().keep(|said, _| said.at.elapsed() <= RECENT);
    }

    /// The last of each key.
    pub(super) fn newest_first(&self) -> Vec<Said> {
        let all = self.0.lock();
        let mut seen = HashSet::new();
        let last = all.said.iter().rev().filter(|said| seen.insert((&said.space, &said.key)));
        last.cloned().collect()
    }
}

impl All {
    /// Lets the oldest go until it is one to keep, by itself and how large all are.
    fn keep(&mut self, keep: impl Fn(&Said, usize) -> bool) {
        while let Some(oldest) = self.said.front()
            && !keep(oldest, self.size)
        {
            self.size -= oldest.size();
            self.said.pop_front();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_of_each_key_is_said_again_while_it_lasts() {
        let values = Values::default();
        values.said(("a", "k"), b"1", None);
        values.said(("b", "k"), b"2", Some(Duration::ZERO));
        values.said(("a", "k"), b"3", Some(Duration::from_secs(60)));
        let said = values.newest_first();
        let found: Vec<_> = said.iter().map(|said| (said.space.as_str(), said.value.as_slice())).collect();
        assert_eq!(found, [("a", &b"3"[..]), ("b", b"2")]);
        assert!(said[0].left().unwrap().unwrap() > Duration::from_secs(50));
        assert!(said[1].left().is_none());
    }

    #[test]
    fn they_take_no_more_memory_than_they_may() {
        let values = Values::default();
        for number in 0..20 {
            values.said(("a", &number.to_string()), &vec![0; 1 << 20], None);
        }
        let said = values.newest_first();
        assert_eq!((said.len(), said[0].key.as_str()), (7, "19"));
        assert!(values.0.lock().size <= SIZE);
    }
}
