//! `Prefer: respond-async, wait=N` (RFC 7240): how long a client waits for an answer before it would rather have the URL
//! of its job.
//!
//! A preference that cannot be read is no preference: the request is answered as if it were not there.

use std::time::Duration;

use http::HeaderMap;

/// What a client prefers, as far as it is known here.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Prefer {
    respond_async: bool,
    wait: Option<u64>,
}

impl Prefer {
    /// The first of several of one name counts (section 2).
    pub(super) fn of(headers: &HeaderMap) -> Prefer {
        let mut prefer = Prefer::default();
        let lines = headers.get_all("prefer").iter().filter_map(|line| line.to_str().ok());
        for preference in lines.flat_map(|line| line.split(',')) {
            // Parameters say nothing about these two.
            let word = preference.split(';').next().unwrap_or_default();
            let (name, value) = word.split_once('=').unwrap_or((word, ""));
            let (name, value) = (name.trim(), value.trim().trim_matches('"'));
            if name.eq_ignore_ascii_case("respond-async") {
                prefer.respond_async = true;
            } else if name.eq_ignore_ascii_case("wait") && prefer.wait.is_none() {
                prefer.wait = value.parse().ok();
            }
        }
        prefer
    }

    /// How long the answer is waited for; `None`: until it is there.
    pub(super) fn patience(self) -> Option<Duration> {
        match (self.wait, self.respond_async) {
            (Some(seconds), _) => Some(Duration::from_secs(seconds)),
            (None, true) => Some(Duration::ZERO),
            (None, false) => None,
        }
    }

    /// `wait` alone, in seconds.
    pub(super) fn wait(self) -> Option<u64> {
        self.wait
    }

    /// The field `Preference-Applied`.
    pub(super) fn applied(self) -> String {
        let respond_async = self.respond_async.then(|| "respond-async".to_owned());
        let wait = self.wait.map(|seconds| format!("wait={seconds}"));
        respond_async.into_iter().chain(wait).collect::<Vec<_>>().join(", ")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn prefer(lines: &[&'static str]) -> Prefer {
        let line = |line: &&'static str| ("prefer".parse().unwrap(), http::HeaderValue::from_static(line));
        Prefer::of(&lines.iter().map(line).collect())
    }

    #[test]
    fn it_is_read_as_the_rfc_writes_it() {
        let seconds = |seconds| Some(Duration::from_secs(seconds));
        for (lines, patience, applied) in [
            (vec![], None, ""),
            (vec!["respond-async"], seconds(0), "respond-async"),
            (vec!["Respond-Async; foo=\"a\""], seconds(0), "respond-async"),
            (vec!["wait=10"], seconds(10), "wait=10"),
            (vec!["handling=lenient, respond-async, wait = \"7\""], seconds(7), "respond-async, wait=7"),
            (vec!["wait=5", "respond-async", "wait=90"], seconds(5), "respond-async, wait=5"),
            (vec!["wait=soon", "wait=-1", "respond-asynchronously", "wait"], None, ""),
            (vec!["return=minimal; wait=1"], None, ""),
        ] {
            let found = prefer(&lines);
            assert_eq!((found.patience(), found.applied().as_str()), (patience, applied), "{lines:?}");
        }
    }
}
