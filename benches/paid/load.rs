//! The load: requests that were made before, sent over kept connections, each as soon as the one before it is answered.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use bytes::Bytes;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::task::JoinSet;

use crate::http1::{Message, Reader};

/// What a run took.
pub(crate) struct Run {
    /// From the first request to the last answer.
    pub(crate) wall: Duration,
    /// How long each request took.
    pub(crate) latencies: Vec<Duration>,
}

/// Sends all of `requests` to `address`, as many at once as there are `connections`. Every answer must be a 200.
pub(crate) fn send(address: SocketAddr, requests: Vec<Bytes>, connections: usize) -> Run {
    let (wall, answers) = exchange(address, requests, connections, |message, took| {
        let body = String::from_utf8_lossy(message.body());
        assert_eq!(message.status(), 200, "{}{body}", String::from_utf8_lossy(message.head()));
        took
    });
    Run { wall, latencies: answers }
}

/// Sends them, and makes something of each answer.
pub(crate) fn exchange<T: Send + 'static>(
    address: SocketAddr,
    requests: Vec<Bytes>,
    connections: usize,
    read: fn(&Message, Duration) -> T,
) -> (Duration, Vec<T>) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async move {
        let mut streams = Vec::new();
        for _ in 0..connections {
            let stream = TcpStream::connect(address).await.unwrap();
            stream.set_nodelay(true).unwrap();
            streams.push(stream);
        }
        let waiting = Arc::new(Mutex::new(VecDeque::from(requests)));
        let began = Instant::now();
        let mut clients = JoinSet::new();
        for mut stream in streams {
            let waiting = Arc::clone(&waiting);
            clients.spawn(async move {
                let (mut reader, mut answers) = (Reader::default(), Vec::new());
                loop {
                    let Some(request) = waiting.lock().unwrap().pop_front() else { return answers };
                    let asked = Instant::now();
                    stream.write_all(&request).await.unwrap();
                    let answer = reader.next(&mut stream).await.expect("the connection was closed");
                    answers.push(read(&answer, asked.elapsed()));
                }
            });
        }
        let answers: Vec<T> = clients.join_all().await.into_iter().flatten().collect();
        (began.elapsed(), answers)
    })
}
