//! Small values and counters.

use galaksio::jobs::StoreError;

use crate::subject::{LONG, Subject};

pub(crate) async fn a_value_is_kept_replaced_and_listed(s: &Subject) {
    assert_eq!(s.store.get("epochs", "a").await.unwrap(), None);
    assert!(s.store.list("epochs").await.unwrap().is_empty());
    s.store.put("epochs", "a", b"1", None).await.unwrap();
    s.store.put("epochs", "a", b"2", Some(LONG)).await.unwrap();
    s.store.put("epochs", "", b"", None).await.unwrap();
    // Neighbours in the order of keys, and a value that is no text.
    s.store.put("epoch", "sa", b"3", None).await.unwrap();
    s.store.put("epochs2", "a", &[0, 0xff, b'\r', b'\n'], None).await.unwrap();

    assert_eq!(s.other.get("epochs", "a").await.unwrap().as_deref(), Some(&b"2"[..]));
    assert_eq!(s.other.get("epochs", "").await.unwrap().as_deref(), Some(&b""[..]));
    assert_eq!(s.other.get("epochs2", "a").await.unwrap().as_deref(), Some(&[0, 0xff, b'\r', b'\n'][..]));
    let mut listed = s.other.list("epochs").await.unwrap();
    listed.sort();
    assert_eq!(listed, [(String::new(), Vec::new()), ("a".to_owned(), b"2".to_vec())]);
}

pub(crate) async fn values_expire(s: &Subject) {
    s.store.put("quotes", "short", b"1", Some(s.brief())).await.unwrap();
    s.store.put("quotes", "long", b"2", Some(LONG)).await.unwrap();
    s.store.put("quotes", "kept", b"3", Some(s.brief())).await.unwrap();
    s.store.put("quotes", "kept", b"4", None).await.unwrap();
    assert_eq!(s.store.put_new("quotes", "new", b"5", Some(s.brief())).await.unwrap(), None);
    assert_eq!(s.store.list("quotes").await.unwrap().len(), 4);
    s.pass(s.brief()).await;
    assert_eq!(s.store.get("quotes", "short").await.unwrap(), None);
    let mut left = s.store.list("quotes").await.unwrap();
    left.sort();
    assert_eq!(left, [("kept".to_owned(), b"4".to_vec()), ("long".to_owned(), b"2".to_vec())]);
    assert_eq!(
        s.store.put_new("quotes", "new", b"6", None).await.unwrap(),
        None,
        "an expired one is in the way"
    );
    assert_eq!(s.store.get("quotes", "new").await.unwrap().as_deref(), Some(&b"6"[..]));
}

pub(crate) async fn one_of_many_new_values_wins(s: &Subject) {
    let writers = (0..32u8).map(|n| {
        let store = s.client(usize::from(n));
        tokio::spawn(async move { (n, store.put_new("keys", "hmac", &[n], None).await.unwrap()) })
    });
    let mut found = Vec::new();
    let mut winner = None;
    for writer in writers.collect::<Vec<_>>() {
        match writer.await.unwrap() {
            (n, None) => assert_eq!(winner.replace(n), None, "two winners"),
            (_, Some(value)) => found.push(value),
        }
    }
    let winner = vec![winner.unwrap()];
    assert!(found.iter().all(|value| *value == winner));
    assert_eq!(s.store.get("keys", "hmac").await.unwrap(), Some(winner));
}

pub(crate) async fn counters_add_up(s: &Subject) {
    let adders = (0..32).map(|n| {
        let store = s.client(n);
        tokio::spawn(async move { store.add("spent", "today", 3).await.unwrap() })
    });
    let mut sums = Vec::new();
    for adder in adders.collect::<Vec<_>>() {
        sums.push(adder.await.unwrap());
    }
    sums.sort_unstable();
    assert_eq!(sums, (1..=32).map(|n| n * 3).collect::<Vec<i64>>());
    assert_eq!(s.store.add("spent", "today", -100).await.unwrap(), -4);
    assert_eq!(s.store.add("spent", "tomorrow", 0).await.unwrap(), 0);
    assert_eq!(s.store.add("spent", "most", i64::MAX).await.unwrap(), i64::MAX);
    let overflow = s.store.add("spent", "most", 1).await;
    assert!(matches!(overflow, Err(StoreError::Away(_))), "{overflow:?}");
    assert_eq!(s.store.add("spent", "most", 0).await.unwrap(), i64::MAX);
}
