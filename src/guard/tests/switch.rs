//! The switch: thrown once, off everywhere.

use super::*;

fn frozen(reason: &str) -> Frozen {
    Frozen { reason: reason.to_owned(), by: "operator".to_owned(), since: 1 }
}

#[tokio::test]
async fn a_freeze_stops_every_process_at_its_next_look() {
    let clock = Clock::manual(NOW);
    let store = Moody::new(&clock);
    let (a, b) = (guards(&store, &clock).await, guards(&store, &clock).await);
    let switch = Switch::Store(store.clone());
    switch.throw(&frozen("a key leaked")).await.unwrap();
    for guards in [&a, &b] {
        guards.tend().await;
        assert_eq!(guards.closed().map(|problem| problem.reason), Some(Reason::WalletFrozen));
        assert_eq!(guards.refuses("a", 1).map(|problem| problem.reason), Some(Reason::WalletFrozen));
        assert_eq!(reserve(guards, "a", 1, 1, None).await.err(), Some(Reason::WalletFrozen));
        assert_eq!(guards.frozen(), Some(frozen("a key leaked")));
    }
    switch.release().await.unwrap();
    a.tend().await;
    assert!(a.closed().is_none() && reserve(&a, "a", 1, 1, None).await.is_ok());

    // By a gateway itself: at once here, and there soon.
    b.freeze(frozen("spent behind our back")).await.unwrap();
    assert!(b.closed().is_some());
    a.tend().await;
    assert_eq!(a.frozen(), Some(frozen("spent behind our back")));
}

#[tokio::test]
async fn a_switch_that_nobody_has_read_is_thrown() {
    let clock = Clock::manual(NOW);
    let store = Moody::new(&clock);
    store.away.store(true, Ordering::SeqCst);
    let guards = guards(&store, &clock).await;
    assert_eq!(guards.closed().map(|problem| problem.reason), Some(Reason::StoreAway));
    store.away.store(false, Ordering::SeqCst);
    guards.tend().await;
    assert!(guards.closed().is_none());
    // A look that is too long ago is none.
    let old = Instant::now().checked_sub(STALE).unwrap();
    guards.seen.store(Arc::new(freeze::Seen { at: Some(old), frozen: None }));
    assert_eq!(guards.closed().map(|problem| problem.reason), Some(Reason::StoreAway));
}

#[tokio::test]
async fn a_file_beside_an_embedded_store_is_a_switch() {
    let folder = tempfile::tempdir().unwrap();
    let switch = Switch::beside(&folder.path().join("jobs.redb"));
    assert_eq!(switch.look().await.unwrap(), None);
    switch.release().await.unwrap();
    switch.throw(&frozen("a test")).await.unwrap();
    assert_eq!(switch.look().await.unwrap(), Some(frozen("a test")));
    let Switch::File(path) = &switch else { panic!() };
    std::fs::write(path, b"half").unwrap();
    assert_eq!(switch.look().await.unwrap().unwrap().reason, "not readable");
    std::fs::write(path, b"").unwrap();
    assert!(switch.look().await.unwrap().is_some(), "an empty file is one that somebody made");
    switch.release().await.unwrap();
    assert_eq!(switch.look().await.unwrap(), None);
    let away = Switch::File(folder.path().join("not/there"));
    assert!(away.throw(&frozen("a test")).await.is_err());
}
