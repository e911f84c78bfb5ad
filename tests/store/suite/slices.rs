//! Slices of a limit that several gateways share.

use std::time::Duration;

use galaksio::jobs::{Draw, JobStore};

use crate::subject::{LONG, Subject};

fn all_of(wanted: u64, limit: u64) -> Draw {
    Draw { wanted, least: wanted, limit, ttl: LONG }
}

async fn drawn(s: &Subject, key: &str) -> u64 {
    let (here, there) =
        (s.store.drawn("limits", key).await.unwrap(), s.other.drawn("limits", key).await.unwrap());
    assert_eq!(here, there);
    here
}

pub(crate) async fn slices_are_never_more_than_the_limit(s: &Subject) {
    assert_eq!(drawn(s, "spend").await, 0);
    assert_eq!(s.store.draw("limits", "spend", "a", all_of(60, 100)).await.unwrap(), Some(60));
    assert_eq!(s.other.draw("limits", "spend", "b", all_of(41, 100)).await.unwrap(), None);
    assert_eq!(drawn(s, "spend").await, 60);
    // Less than it wanted, if that will do.
    let some = Draw { least: 40, ..all_of(90, 100) };
    assert_eq!(s.other.draw("limits", "spend", "b", some).await.unwrap(), Some(40));
    assert_eq!(s.store.draw("limits", "spend", "c", all_of(1, 100)).await.unwrap(), None);
    let none = Draw { least: 0, ..all_of(1, 100) };
    assert_eq!(s.store.draw("limits", "spend", "c", none).await.unwrap(), Some(0));
    assert_eq!(drawn(s, "spend").await, 100);
    // Another key, and another space, are other limits.
    assert_eq!(s.store.draw("limits", "spen", "da", all_of(100, 100)).await.unwrap(), Some(100));
    assert_eq!(s.store.draw("limit", "spend", "a", all_of(100, 100)).await.unwrap(), Some(100));
    assert_eq!(drawn(s, "spend").await, 100);
    // As large as they come, in names that are as odd.
    let most = Draw { ttl: LONG, wanted: u64::MAX, least: Draw::MOST, limit: u64::MAX };
    assert_eq!(s.store.draw("limits", "most", "a b\tc", most).await.unwrap(), Some(Draw::MOST));
    assert_eq!(drawn(s, "most").await, Draw::MOST);
    assert_eq!(s.store.draw("limits", "most", "d", all_of(1, u64::MAX)).await.unwrap(), None);
    let too_much = Draw { least: u64::MAX, ..most };
    assert_eq!(s.store.draw("limits", "more", "a", too_much).await.unwrap(), None);
}

pub(crate) async fn a_slice_grows_shrinks_and_ends(s: &Subject) {
    let draw = async |store: &dyn JobStore, wanted| {
        store.draw("limits", "spend", "a", all_of(wanted, 100)).await.unwrap()
    };
    assert_eq!(draw(&*s.store, 40).await, Some(40));
    // The same slice, not one more: a repeat changes nothing.
    assert_eq!(draw(&*s.other, 40).await, Some(40));
    assert_eq!(draw(&*s.other, 90).await, Some(90));
    assert_eq!(draw(&*s.other, 101).await, None);
    assert_eq!(drawn(s, "spend").await, 90);
    assert_eq!(draw(&*s.store, 10).await, Some(10));
    assert_eq!(draw(&*s.store, 0).await, Some(0));
    assert_eq!(drawn(s, "spend").await, 0);

    let short = Draw { ttl: s.brief(), ..all_of(70, 100) };
    assert_eq!(s.store.draw("limits", "spend", "dead", short).await.unwrap(), Some(70));
    assert_eq!(draw(&*s.store, 31).await, None);
    assert_eq!(draw(&*s.store, 30).await, Some(30));
    s.pass(s.brief()).await;
    assert_eq!(drawn(s, "spend").await, 30, "the slice of one that died is not free again");
    assert_eq!(draw(&*s.store, 100).await, Some(100));

    // A slice of which more is drawn ends later; and none of it ends with another's.
    assert_eq!(s.store.draw("limits", "renewed", "a", short).await.unwrap(), Some(70));
    assert_eq!(s.other.draw("limits", "renewed", "a", all_of(70, 100)).await.unwrap(), Some(70));
    let brief = Draw { ttl: s.brief(), ..all_of(10, 100) };
    assert_eq!(s.store.draw("limits", "renewed", "b", brief).await.unwrap(), Some(10));
    s.pass(s.brief()).await;
    assert_eq!(drawn(s, "renewed").await, 70);
}

pub(crate) async fn a_slice_keeps_what_it_has_when_the_limit_falls(s: &Subject) {
    for slice in ["a", "b"] {
        assert_eq!(s.store.draw("limits", "spend", slice, all_of(50, 100)).await.unwrap(), Some(50));
    }
    let less = |wanted| Draw { least: 0, ..all_of(wanted, 60) };
    assert_eq!(s.other.draw("limits", "spend", "a", less(80)).await.unwrap(), Some(50));
    assert_eq!(s.other.draw("limits", "spend", "a", less(30)).await.unwrap(), Some(30));
    assert_eq!(s.other.draw("limits", "spend", "a", less(80)).await.unwrap(), Some(30));
    assert_eq!(s.other.draw("limits", "spend", "c", less(1)).await.unwrap(), Some(0));
    assert_eq!(drawn(s, "spend").await, 80);
}

pub(crate) async fn many_drawers_never_overdraw(s: &Subject) {
    let drawers = (0..48usize).map(|n| {
        let store = s.client(n);
        tokio::spawn(async move {
            let mut held = 0;
            for round in 0..6 {
                let draw =
                    Draw { wanted: held + 7, least: held + 1, limit: 100, ttl: Duration::from_secs(600) };
                held = store.draw("limits", "all", &n.to_string(), draw).await.unwrap().unwrap_or(held);
                let sum = store.drawn("limits", "all").await.unwrap();
                assert!(sum <= 100, "{sum} in round {round}");
            }
            held
        })
    });
    let mut sum = 0;
    for drawer in drawers.collect::<Vec<_>>() {
        sum += drawer.await.unwrap();
    }
    assert_eq!(sum, 100, "as much as there is");
    assert_eq!(drawn(s, "all").await, 100);
}
