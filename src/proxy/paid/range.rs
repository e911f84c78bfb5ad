//! One range of a representation, as `Range` and `If-Range` ask for it (RFC 9110 sections 13.1.5 and 14).
//!
//! Several ranges at once, other units and what cannot be read are passed over, as the RFC allows: then all of it is sent.

use http::header::{HeaderMap, IF_NONE_MATCH, IF_RANGE, RANGE};

/// What of a representation is to be sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Part {
    /// All of it.
    Whole,
    /// From the first of these bytes to the last.
    Range(u64, u64),
    /// Nothing: what is asked for is not there.
    Unsatisfiable,
}

/// What of `length` bytes with this entity tag is asked for.
pub(super) fn part(headers: &HeaderMap, etag: &str, length: u64) -> Part {
    let mut lines = headers.get_all(RANGE).iter();
    let (Some(line), None) = (lines.next(), lines.next()) else { return Part::Whole };
    // A strong comparison: a weak tag is never equal, and a date is not, since we give none.
    let same = headers.get(IF_RANGE).is_none_or(|condition| condition.as_bytes() == etag.as_bytes());
    match line.to_str().ok().filter(|_| same).and_then(|line| parse(line, length)) {
        Some(part) => part,
        None => Part::Whole,
    }
}

/// Whether the client has what has this entity tag, as `If-None-Match` says.
pub(super) fn is_known(headers: &HeaderMap, etag: &str) -> bool {
    let lines = headers.get_all(IF_NONE_MATCH).iter().filter_map(|line| line.to_str().ok());
    lines.flat_map(|line| line.split(',')).any(|tag| {
        let tag = tag.trim();
        tag == "*" || tag.strip_prefix("W/").unwrap_or(tag) == etag
    })
}

fn parse(line: &str, length: u64) -> Option<Part> {
    let (unit, range) = line.split_once('=')?;
    if !unit.trim().eq_ignore_ascii_case("bytes") {
        return None;
    }
    let (first, last) = range.trim().split_once('-')?;
    let end = length.checked_sub(1);
    let Some(first) = digits(first)? else {
        let suffix = digits(last)??;
        return Some(match end.filter(|_| suffix > 0) {
            Some(end) => Part::Range(length.saturating_sub(suffix), end),
            None => Part::Unsatisfiable,
        });
    };
    let last = digits(last)?;
    if last.is_some_and(|last| last < first) {
        return None;
    }
    Some(match end.filter(|end| first <= *end) {
        Some(end) => Part::Range(first, last.unwrap_or(end).min(end)),
        None => Part::Unsatisfiable,
    })
}

/// A number, which may be left out; one that is too large for us is larger than any file. `None` if it is none.
fn digits(text: &str) -> Option<Option<u64>> {
    let text = text.trim();
    if !text.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    Some((!text.is_empty()).then(|| text.parse().unwrap_or(u64::MAX)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn asked(range: &str) -> HeaderMap {
        HeaderMap::from_iter([(RANGE, range.parse().unwrap())])
    }

    #[test]
    fn single_ranges_are_read_and_others_passed_over() {
        for (range, expected) in [
            ("bytes=0-0", Part::Range(0, 0)),
            ("bytes=2-5", Part::Range(2, 5)),
            ("Bytes = 2-", Part::Range(2, 9)),
            ("bytes=2-99999999999999999999", Part::Range(2, 9)),
            ("bytes=-3", Part::Range(7, 9)),
            ("bytes=-99", Part::Range(0, 9)),
            ("bytes=10-", Part::Unsatisfiable),
            ("bytes=99999999999999999999-", Part::Unsatisfiable),
            ("bytes=-0", Part::Unsatisfiable),
            ("bytes=5-2", Part::Whole),
            ("bytes=0-1,3-4", Part::Whole),
            ("bytes=-", Part::Whole),
            ("bytes=a-b", Part::Whole),
            ("bytes=+1-2", Part::Whole),
            ("bytes", Part::Whole),
            ("pages=1-2", Part::Whole),
        ] {
            assert_eq!(part(&asked(range), "\"a\"", 10), expected, "{range}");
        }
        assert_eq!(part(&asked("bytes=0-"), "\"a\"", 0), Part::Unsatisfiable);
        assert_eq!(part(&asked("bytes=-1"), "\"a\"", 0), Part::Unsatisfiable);
        let mut twice = asked("bytes=0-1");
        twice.append(RANGE, "bytes=2-3".parse().unwrap());
        assert_eq!(part(&twice, "\"a\"", 10), Part::Whole);
    }

    #[test]
    fn a_range_of_something_else_is_not_sent() {
        for (condition, expected) in [
            ("\"a\"", Part::Range(0, 1)),
            ("\"b\"", Part::Whole),
            ("W/\"a\"", Part::Whole),
            ("Thu, 01 Jan 2026 00:00:00 GMT", Part::Whole),
        ] {
            let mut headers = asked("bytes=0-1");
            headers.insert(IF_RANGE, condition.parse().unwrap());
            assert_eq!(part(&headers, "\"a\"", 10), expected, "{condition}");
        }
        for (tags, known) in [("\"a\"", true), ("\"b\", W/\"a\"", true), ("*", true), ("\"b\"", false)] {
            let headers = HeaderMap::from_iter([(IF_NONE_MATCH, tags.parse().unwrap())]);
            assert_eq!(is_known(&headers, "\"a\""), known, "{tags}");
        }
    }

    proptest! {
        #[test]
        fn a_range_is_always_inside(range in "bytes=[0-9]{0,21}-[0-9]{0,21}", length in 0u64..100) {
            if let Part::Range(first, last) = part(&asked(&range), "\"a\"", length) {
                prop_assert!(first <= last && last < length);
            }
        }
    }
}
