//! A stretch of wire in front of a server that can lose an answer (the request arrives, is done, and nobody hears of it), and
//! go dead without a word.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::AbortHandle;

pub(crate) struct Wire {
    pub(crate) port: u16,
    state: Arc<State>,
    task: AbortHandle,
}

#[derive(Default)]
struct State {
    /// The next answer is lost.
    cut: AtomicBool,
    /// Connections that were made, each with the number that this was before it.
    made: AtomicUsize,
    /// Of those with a lower number nothing arrives any more.
    dead: AtomicUsize,
}

impl Wire {
    pub(crate) async fn to(server: u16) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let state = Arc::<State>::default();
        let task = tokio::spawn(accept(listener, server, Arc::clone(&state))).abort_handle();
        Wire { port, state, task }
    }

    /// The next answer is lost, and the connection with it.
    pub(crate) fn lose_next_answer(&self) {
        self.state.cut.store(true, Ordering::SeqCst);
    }

    /// Whether that has happened.
    pub(crate) fn lost(&self) -> bool {
        !self.state.cut.load(Ordering::SeqCst)
    }

    /// The connections there are stay open, and carry nothing any more; new ones do.
    pub(crate) fn go_dead(&self) {
        self.state.dead.store(self.made(), Ordering::SeqCst);
    }

    /// How many connections were made.
    pub(crate) fn made(&self) -> usize {
        self.state.made.load(Ordering::SeqCst)
    }
}

impl Drop for Wire {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn accept(listener: TcpListener, server: u16, state: Arc<State>) {
    loop {
        let (client, _) = listener.accept().await.unwrap();
        tokio::spawn(carry(client, server, Arc::clone(&state)));
    }
}

async fn carry(client: TcpStream, server: u16, state: Arc<State>) {
    let number = state.made.fetch_add(1, Ordering::SeqCst);
    let server = TcpStream::connect(("127.0.0.1", server)).await.unwrap();
    let (mut from_client, mut to_client) = client.into_split();
    let (mut from_server, mut to_server) = server.into_split();
    let above = Arc::clone(&state);
    let up = tokio::spawn(async move {
        let mut request = vec![0; 64 << 10];
        while let Ok(read @ 1..) = from_client.read(&mut request).await {
            let dead = number < above.dead.load(Ordering::SeqCst);
            if !dead && to_server.write_all(&request[..read]).await.is_err() {
                break;
            }
        }
    });
    let mut answer = vec![0; 64 << 10];
    while let Ok(read @ 1..) = from_server.read(&mut answer).await {
        if number < state.dead.load(Ordering::SeqCst) {
            continue;
        }
        if state.cut.swap(false, Ordering::SeqCst) || to_client.write_all(&answer[..read]).await.is_err() {
            break;
        }
    }
    up.abort();
}
