//! Answers in files: read while they arrive, held to their limits, and gone when they are.

use bytes::Bytes;
use http_body::Frame;
use http_body_util::BodyExt;
use tokio::sync::mpsc;

use super::*;
use crate::jobs::memory::MemoryStore;
use crate::outgoing::{BoxError, Frames};

const NOW: u64 = 1_700_000_000_000;
const RETENTION: Duration = Duration::from_secs(3600);

type Arriving = mpsc::UnboundedSender<Result<Frame<Bytes>, BoxError>>;

struct Shop {
    results: Results,
    clock: Clock,
    metrics: Arc<Metrics>,
    _folder: tempfile::TempDir,
}

fn shop(largest: u64, together: u64) -> Shop {
    sharing(largest, together, None)
}

fn sharing(largest: u64, together: u64, store: Option<Arc<dyn ValueStore>>) -> Shop {
    let folder = tempfile::tempdir().unwrap();
    let limits = ResultLimits {
        folder: folder.path().to_owned(),
        largest,
        together,
        retention: RETENTION,
        linger: Duration::from_secs(60),
    };
    let clock = Clock::manual(NOW);
    let metrics = Arc::new(Metrics::new());
    let results = Results::new(limits, clock.clone(), Arc::clone(&metrics), store);
    Shop { results, clock, metrics, _folder: folder }
}

/// A body, and whence it comes.
fn arriving(length: Option<u64>) -> (Arriving, BodyStream) {
    let (sender, receiver) = mpsc::unbounded_channel();
    let frames = futures_util::stream::unfold(receiver, |mut receiver| async move {
        let frame = receiver.recv().await?;
        Some((frame, receiver))
    });
    (sender, Frames::new(Box::pin(frames), length).boxed_unsync())
}

fn data(bytes: &[u8]) -> Result<Frame<Bytes>, BoxError> {
    Ok(Frame::data(Bytes::copy_from_slice(bytes)))
}

fn whole(bytes: &[u8]) -> BodyStream {
    let (sender, body) = arriving(Some(bytes.len() as u64));
    sender.send(data(bytes)).unwrap();
    body
}

fn answer(content_type: &str) -> Answer {
    Answer { status: 200, headers: vec![("content-type".into(), content_type.into())], body: Kept::Not }
}

fn octets() -> Answer {
    answer("application/octet-stream")
}

async fn read(body: BodyStream) -> Result<Bytes, BoxError> {
    body.collect().await.map(http_body_util::Collected::to_bytes)
}

/// As much of it as is there at once.
async fn next(body: &mut BodyStream) -> Bytes {
    body.frame().await.unwrap().unwrap().into_data().unwrap()
}

#[tokio::test]
async fn it_is_read_while_it_arrives_and_again_in_parts() {
    let shop = shop(1000, 1000);
    let key = (JobId::new(), 1);
    let (sender, body) = arriving(Some(10));
    let mut first = shop.results.keep(key, &octets(), body, None).await;
    assert!(first.kept);
    assert_eq!(first.body.size_hint().exact(), Some(10));
    sender.send(data(b"01234")).unwrap();
    assert_eq!(next(&mut first.body).await, "01234");
    // Whoever comes in between waits for the rest, and for no more than he wants.
    let kept = shop.results.find(key).unwrap();
    assert_eq!(kept.length(), Some(10));
    assert_eq!(read(kept.part(1..=3)).await.unwrap(), "123");
    let again = tokio::spawn(read(kept.whole()));
    let later = tokio::spawn(read(kept.part(4..=7)));
    sender.send(data(b"56789")).unwrap();
    drop(sender);
    assert_eq!(read(first.body).await.unwrap(), "56789");
    assert_eq!(
        (again.await.unwrap().unwrap(), later.await.unwrap().unwrap()),
        ("0123456789".into(), "4567".into())
    );
    // An earlier attempt of the same job is another answer.
    assert!(shop.results.find((key.0, 2)).is_none());
}

#[tokio::test]
async fn what_is_behind_the_content_comes_too() {
    let shop = shop(1000, 1000);
    let (sender, body) = arriving(None);
    let first = shop.results.keep((JobId::new(), 1), &octets(), body, None).await;
    sender.send(data(b"abc")).unwrap();
    let trailers = HeaderMap::from_iter([(http::header::ETAG, "\"1\"".parse().unwrap())]);
    sender.send(Ok(Frame::trailers(trailers.clone()))).unwrap();
    drop(sender);
    let collected = first.body.collect().await.unwrap();
    assert_eq!(collected.trailers(), Some(&trailers));
}

#[tokio::test]
async fn one_that_turns_out_too_large_is_for_its_first_reader_only() {
    let shop = shop(8, 1000);
    let key = (JobId::new(), 1);
    let (sender, body) = arriving(None);
    let mut first = shop.results.keep(key, &octets(), body, None).await;
    sender.send(data(b"01234")).unwrap();
    assert_eq!(next(&mut first.body).await, "01234");
    let kept = shop.results.find(key).unwrap();
    assert_eq!(kept.length(), None);
    let second = tokio::spawn(read(kept.whole()));
    drop(kept);
    for piece in [b"567", b"89a", b"bcd"] {
        sender.send(data(piece)).unwrap();
    }
    drop(sender);
    assert_eq!(read(first.body).await.unwrap(), "56789abcd");
    assert!(second.await.unwrap().is_err());
    assert!(shop.results.find(key).is_none());
    assert_eq!(shop.results.0.spool.free(), 1000);
    // One that says so is not begun, nor is what is told as it happens.
    for (answer, body) in [(octets(), whole(b"012345678")), (answer("Text/Event-Stream; a=b"), whole(b"0"))] {
        let fresh = shop.results.keep(key, &answer, body, None).await;
        assert!(!fresh.kept && shop.results.find(key).is_none());
    }
}

#[tokio::test]
async fn one_that_breaks_off_is_none() {
    let shop = shop(1000, 1000);
    for error in [true, false] {
        let key = (JobId::new(), 1);
        let (sender, body) = arriving(Some(10));
        let mut first = shop.results.keep(key, &octets(), body, None).await;
        sender.send(data(b"01234")).unwrap();
        assert_eq!(next(&mut first.body).await, "01234");
        if error {
            sender.send(Err("gone".into())).unwrap();
        }
        drop(sender);
        assert!(read(first.body).await.is_err(), "it is never taken for whole");
        assert!(shop.results.find(key).is_none());
    }
    let (sender, body) = arriving(Some(10));
    drop(sender);
    assert_eq!(shop.results.keep_whole((JobId::new(), 1), body).await.err(), Some(NotKept::Broken));
    let kept = shop.results.keep_whole((JobId::new(), 1), whole(b"abc")).await.unwrap();
    assert_eq!(read(kept).await.unwrap(), "abc");
}

#[tokio::test(start_paused = true)]
async fn a_client_that_goes_away_finds_it_whole_if_it_does_not_take_for_ever() {
    let shop = shop(1000, 1000);
    let (key, endless) = ((JobId::new(), 1), (JobId::new(), 1));
    let (sender, body) = arriving(None);
    drop(shop.results.keep(key, &octets(), body, None).await);
    sender.send(data(b"abc")).unwrap();
    drop(sender);
    let kept = shop.results.find(key).unwrap();
    assert_eq!(read(kept.whole()).await.unwrap(), "abc");
    let (sender, body) = arriving(None);
    drop(shop.results.keep(endless, &octets(), body, None).await);
    sender.send(data(b"abc")).unwrap();
    assert!(read(shop.results.find(endless).unwrap().whole()).await.is_err());
    assert!(sender.is_closed() && shop.results.find(endless).is_none());
}

#[tokio::test]
async fn where_there_is_no_room_the_oldest_goes() {
    let shop = shop(8, 10);
    let keys: Vec<Key> = (0..3).map(|_| (JobId::new(), 1)).collect();
    for (at, key) in keys.iter().enumerate() {
        let fresh = shop.results.keep(*key, &octets(), whole(b"01234"), None).await;
        assert_eq!(read(fresh.body).await.unwrap(), "01234");
        let kept: Vec<bool> = keys.iter().map(|key| shop.results.find(*key).is_some()).collect();
        assert_eq!(kept, [at < 2, at >= 1, at >= 2]);
    }
    // Also where it is found out on the way. What somebody reads takes its room until he has done.
    let reading = shop.results.find(keys[1]).unwrap();
    let (sender, body) = arriving(None);
    let fresh = shop.results.keep((JobId::new(), 1), &octets(), body, None).await;
    for piece in [b"01", b"23", b"45", b"67"] {
        sender.send(data(piece)).unwrap();
    }
    drop(sender);
    assert_eq!(read(fresh.body).await.unwrap(), "01234567");
    assert_eq!(read(reading.whole()).await.unwrap(), "01234");
}

#[tokio::test]
async fn what_is_kept_and_what_is_not_is_counted() {
    let shop = shop(8, 10);
    let key = || (JobId::new(), 1);
    let counted = || {
        let text = shop.metrics.exposition().unwrap();
        [
            "kept_answers ",
            "kept_answers_bytes ",
            "kept_answers_dropped_total ",
            "not_kept_total{why=\"too_large\"} ",
            "not_kept_total{why=\"no_room\"} ",
        ]
        .map(|name| {
            let of = |line: &str| line.split_once(name).map(|(_, value)| value.to_owned());
            text.lines()
                .filter(|line| !line.starts_with('#'))
                .find_map(of)
                .map_or(0, |value| value.parse().unwrap())
        })
    };
    assert_eq!(counted(), [0, 0, 0, 0, 0]);
    drop(shop.results.keep_whole(key(), whole(b"01234")).await.unwrap());
    // Said before, and found out on the way.
    shop.results.keep_whole(key(), whole(b"012345678")).await.unwrap_err();
    let (sender, body) = arriving(None);
    let fresh = shop.results.keep(key(), &octets(), body, None).await;
    sender.send(data(b"012345678")).unwrap();
    drop(sender);
    assert_eq!(read(fresh.body).await.unwrap(), "012345678");
    shop.results.tend(Duration::from_secs(1)).await;
    assert_eq!(counted(), [1, 5, 0, 2, 0]);
    // One makes room. While both are read there is none to be made.
    let second = key();
    drop(shop.results.keep_whole(second, whole(b"0123456")).await.unwrap());
    let _reading = shop.results.find(second).unwrap();
    let fresh = shop.results.keep(key(), &octets(), whole(b"0123"), None).await;
    assert_eq!((read(fresh.body).await.unwrap(), fresh.kept), ("0123".into(), false));
    shop.results.tend(Duration::from_secs(1)).await;
    assert_eq!(counted(), [1, 7, 1, 2, 1]);
    assert!(shop.results.find(second).is_some());
    // Where none are kept nobody misses one.
    let none = self::shop(0, 10);
    assert!(!none.results.keep(key(), &octets(), whole(b"0123"), None).await.kept);
    assert!(!none.metrics.exposition().unwrap().contains("no_room"));
}

#[tokio::test]
async fn what_is_old_is_gone() {
    let shop = shop(8, 10);
    let key = (JobId::new(), 1);
    drop(shop.results.keep_whole(key, whole(b"abc")).await.unwrap());
    shop.clock.advance(RETENTION.as_millis() as u64 - 1);
    shop.results.tend(Duration::from_secs(1)).await;
    assert!(shop.results.find(key).is_some());
    shop.clock.advance(1);
    assert!(shop.results.find(key).is_none());
    assert_eq!(shop.results.0.spool.free(), 7);
    shop.results.tend(Duration::from_secs(1)).await;
    assert_eq!(shop.results.0.spool.free(), 10);
}

#[tokio::test]
async fn other_gateways_know_who_has_it() {
    let clock = Clock::manual(NOW);
    let store: Arc<dyn ValueStore> = MemoryStore::new(clock.clone());
    let (one, other) = (sharing(8, 10, Some(store.clone())), sharing(8, 10, Some(store.clone())));
    let (key, nobodys) = ((JobId::new(), 1), (JobId::new(), 1));
    drop(one.results.keep_whole(key, whole(b"abcdef")).await.unwrap());
    assert!(other.results.is_elsewhere(key).await && !other.results.is_elsewhere(nobodys).await);
    assert!(!one.results.is_elsewhere(key).await);
    // It makes room for another.
    drop(one.results.keep_whole(nobodys, whole(b"abcdef")).await.unwrap());
    assert!(!other.results.is_elsewhere(key).await && other.results.is_elsewhere(nobodys).await);
    // It does not say any more that it is there.
    clock.advance(61_000);
    assert!(!other.results.is_elsewhere(nobodys).await);
}
