//! A stretch of wire in front of a server that can lose an answer: the request arrives, is done, and nobody
//! hears of it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::AbortHandle;

pub(crate) struct Wire {
    pub(crate) port: u16,
    cut: Arc<AtomicBool>,
    task: AbortHandle,
}

impl Wire {
    pub(crate) async fn to(server: u16) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let cut = Arc::new(AtomicBool::new(false));
        let task = tokio::spawn(accept(listener, server, Arc::clone(&cut))).abort_handle();
        Wire { port, cut, task }
    }

    /// The next answer is lost, and the connection with it.
    pub(crate) fn lose_next_answer(&self) {
        self.cut.store(true, Ordering::SeqCst);
    }

    /// Whether that has happened.
    pub(crate) fn lost(&self) -> bool {
        !self.cut.load(Ordering::SeqCst)
    }
}

impl Drop for Wire {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn accept(listener: TcpListener, server: u16, cut: Arc<AtomicBool>) {
    loop {
        let (client, _) = listener.accept().await.unwrap();
        tokio::spawn(carry(client, server, Arc::clone(&cut)));
    }
}

async fn carry(client: TcpStream, server: u16, cut: Arc<AtomicBool>) {
    let server = TcpStream::connect(("127.0.0.1", server)).await.unwrap();
    let (mut from_client, mut to_client) = client.into_split();
    let (mut from_server, mut to_server) = server.into_split();
    let up = tokio::spawn(async move { tokio::io::copy(&mut from_client, &mut to_server).await });
    let mut answer = vec![0; 64 << 10];
    while let Ok(read @ 1..) = from_server.read(&mut answer).await {
        if cut.swap(false, Ordering::SeqCst) || to_client.write_all(&answer[..read]).await.is_err() {
            break;
        }
    }
    up.abort();
}
