//! Whether one facilitator may be called: closed while it answers, open after it did not, tripped for good by whoever
//! caught it lying. Pure: it is told the time and what happened.

use std::time::Duration;

use tokio::time::Instant;

/// Calls without an answer, one after the other, that open it.
const FAILURES: u32 = 5;
/// How long it stays open at first; doubled each time the trial after it fails.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(30);
/// A trial that nobody heard the end of is forgotten after this.
const TRIAL: Duration = Duration::from_secs(120);

#[derive(Debug)]
pub(super) struct Breaker {
    state: State,
    /// Why it may not be called whatever its answers are. Until [`Breaker::reset`].
    tripped: Option<String>,
}

#[derive(Debug)]
enum State {
    Closed {
        failures: u32,
    },
    /// Nothing but looks until then.
    Open {
        until: Instant,
        pause: Duration,
        why: String,
        by: Opened,
    },
    /// One payment at a time may try it.
    HalfOpen {
        trial: Option<Instant>,
        pause: Duration,
    },
}

/// What opened it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Opened {
    /// It was not there when looked at: it is well as soon as it is there again.
    Look,
    /// It did not answer calls that matter: a trial has to show that it does.
    Calls,
}

impl Breaker {
    pub(super) fn new() -> Self {
        Breaker { state: State::Closed { failures: 0 }, tripped: None }
    }

    /// Whether a call may be made now. After a yes its outcome must be told.
    pub(super) fn admits(&mut self, now: Instant) -> bool {
        if self.tripped.is_some() {
            return false;
        }
        match &mut self.state {
            State::Closed { .. } => true,
            State::Open { until, by: Opened::Calls, pause, .. } if now >= *until => {
                self.state = State::HalfOpen { trial: Some(now), pause: *pause };
                true
            }
            State::Open { .. } => false,
            State::HalfOpen { trial, .. } => {
                let free = trial.is_none_or(|since| now >= since + TRIAL);
                if free {
                    *trial = Some(now);
                }
                free
            }
        }
    }

    /// Why it is not to be counted on now.
    pub(super) fn fault(&self) -> Option<&str> {
        match (&self.tripped, &self.state) {
            (Some(why), _) | (None, State::Open { why, .. }) => Some(why),
            (None, _) => None,
        }
    }

    pub(super) fn is_tripped(&self) -> bool {
        self.tripped.is_some()
    }

    /// A call was answered, whatever the answer.
    pub(super) fn answered(&mut self) {
        self.state = State::Closed { failures: 0 };
    }

    /// A call was not.
    pub(super) fn failed(&mut self, why: &str, now: Instant) {
        let open = |pause| State::Open { until: now + pause, pause, why: why.to_owned(), by: Opened::Calls };
        match &mut self.state {
            State::Closed { failures } => {
                *failures += 1;
                if *failures >= FAILURES {
                    self.state = open(FIRST_PAUSE);
                }
            }
            State::HalfOpen { pause, .. } => self.state = open((*pause * 2).min(LONGEST_PAUSE)),
            // Of a call that began before it was opened.
            State::Open { .. } => {}
        }
    }

    /// It was looked at and is there; that it also verifies and settles is not known.
    pub(super) fn is_there(&mut self, now: Instant) {
        match &mut self.state {
            State::Open { by: Opened::Look, .. } => self.state = State::Closed { failures: 0 },
            State::Open { until, pause, .. } if now >= *until => {
                self.state = State::HalfOpen { trial: None, pause: *pause };
            }
            _ => {}
        }
    }

    /// It was looked at and cannot be reached.
    pub(super) fn is_gone(&mut self, why: &str, now: Instant) {
        let why = why.to_owned();
        match &mut self.state {
            State::Closed { .. } => {
                self.state =
                    State::Open { until: now + FIRST_PAUSE, pause: FIRST_PAUSE, why, by: Opened::Look };
            }
            State::HalfOpen { pause, .. } => {
                let pause = *pause;
                self.state = State::Open { until: now + pause, pause, why, by: Opened::Calls };
            }
            State::Open { why: before, .. } => *before = why,
        }
    }

    /// Opens it until [`Breaker::reset`], whatever it answers.
    pub(super) fn trip(&mut self, why: String) {
        self.tripped = Some(why);
    }

    /// Takes back [`Breaker::trip`].
    pub(super) fn reset(&mut self) {
        self.tripped = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn opened(now: Instant) -> Breaker {
        let mut breaker = Breaker::new();
        for _ in 0..FAILURES {
            assert!(breaker.admits(now));
            breaker.failed("502", now);
        }
        breaker
    }

    #[test]
    fn it_opens_after_failures_in_a_row_and_an_answer_between_them_counts() {
        let now = Instant::now();
        let mut breaker = Breaker::new();
        for _ in 0..3 {
            for _ in 1..FAILURES {
                breaker.failed("502", now);
            }
            breaker.answered();
        }
        assert!(breaker.admits(now) && breaker.fault().is_none());
        let mut breaker = opened(now);
        assert!(!breaker.admits(now));
        assert_eq!(breaker.fault(), Some("502"));
    }

    #[test]
    fn one_trial_at_a_time_and_each_that_fails_doubles_the_pause() {
        let mut now = Instant::now();
        let mut breaker = opened(now);
        let mut pause = FIRST_PAUSE;
        for _ in 0..8 {
            assert!(!breaker.admits(now + pause - Duration::from_millis(1)));
            now += pause;
            assert!(breaker.admits(now) && !breaker.admits(now), "one at a time");
            breaker.failed("502", now);
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
        now += pause;
        assert!(breaker.admits(now));
        breaker.answered();
        assert!(breaker.admits(now) && breaker.admits(now) && breaker.fault().is_none());
    }

    #[test]
    fn a_trial_without_an_end_is_not_the_last() {
        let now = Instant::now();
        let mut breaker = opened(now);
        assert!(breaker.admits(now + SECOND) && !breaker.admits(now + SECOND * 100));
        assert!(breaker.admits(now + SECOND + TRIAL));
    }

    #[test]
    fn a_look_opens_and_closes_what_a_look_opened_and_half_opens_the_rest() {
        let now = Instant::now();
        let mut breaker = Breaker::new();
        breaker.is_gone("refused", now);
        assert!(!breaker.admits(now + SECOND * 1000), "only a look finds it again");
        assert_eq!(breaker.fault(), Some("refused"));
        breaker.is_there(now);
        assert!(breaker.admits(now) && breaker.admits(now));

        let mut breaker = opened(now);
        breaker.is_there(now);
        assert!(breaker.fault().is_some(), "being there is not enough before its time");
        breaker.is_there(now + SECOND);
        assert!(breaker.fault().is_none() && breaker.admits(now) && !breaker.admits(now));
    }

    #[test]
    fn tripped_it_stays_whatever_it_answers() {
        let now = Instant::now();
        let mut breaker = Breaker::new();
        breaker.trip("it lied".into());
        breaker.answered();
        breaker.is_there(now);
        assert!(!breaker.admits(now + LONGEST_PAUSE) && breaker.is_tripped());
        assert_eq!(breaker.fault(), Some("it lied"));
        breaker.reset();
        assert!(breaker.admits(now) && breaker.fault().is_none());
    }
}
