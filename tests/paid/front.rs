//! A door in front of a service of the sandbox: it can be shut, so that nobody is reached, or let everyone wait.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use parking_lot::Mutex;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio::task::{JoinHandle, JoinSet};

/// The door. Shut until it is opened; its address is known before.
pub(crate) struct Front {
    address: SocketAddr,
    /// Keeps the address while nobody listens: who comes is refused, and no other program is given the port.
    _held: TcpSocket,
    seen: Arc<Seen>,
    open: Mutex<Option<JoinHandle<()>>>,
}

#[derive(Default)]
struct Seen {
    hangs: AtomicBool,
    verify: AtomicUsize,
    settle: AtomicUsize,
}

impl Front {
    pub(crate) fn new() -> Front {
        let held = bound(SocketAddr::from(([127, 0, 0, 1], 0)));
        let address = held.local_addr().unwrap();
        Front { address, _held: held, seen: Arc::default(), open: Mutex::new(None) }
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Lets everyone through to the service at `url`.
    pub(crate) async fn open(&self, url: &str) {
        self.shut().await;
        let to: SocketAddr = url.strip_prefix("http://").unwrap().parse().unwrap();
        let listener = bound(self.address).listen(1024).unwrap();
        let seen = Arc::clone(&self.seen);
        *self.open.lock() = Some(tokio::spawn(async move {
            // Dropped with this task, and every connection with it.
            let mut connections = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                let seen = Arc::clone(&seen);
                connections.spawn(async move { pass(stream, to, &seen).await });
            }
        }));
    }

    /// Lets nobody in any more.
    pub(crate) async fn shut(&self) {
        let open = self.open.lock().take();
        if let Some(open) = open {
            open.abort();
            let _ = open.await;
        }
    }

    /// Whether those who come are kept waiting.
    pub(crate) fn hang(&self, hangs: bool) {
        self.seen.hangs.store(hangs, Ordering::SeqCst);
    }

    /// How often it was asked to verify, and to settle.
    pub(crate) fn asked(&self) -> (usize, usize) {
        (self.seen.verify.load(Ordering::SeqCst), self.seen.settle.load(Ordering::SeqCst))
    }
}

impl Drop for Front {
    fn drop(&mut self) {
        if let Some(open) = self.open.lock().take() {
            open.abort();
        }
    }
}

/// Bound, but not listening; by `SO_REUSEADDR` several may be bound to one address, of which one listens.
fn bound(address: SocketAddr) -> TcpSocket {
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_reuseaddr(true).unwrap();
    socket.bind(address).unwrap();
    socket
}

async fn pass(client: TcpStream, to: SocketAddr, seen: &Seen) {
    let Ok(service) = TcpStream::connect(to).await else { return };
    let (mut from_client, mut to_client) = client.into_split();
    let (mut from_service, mut to_service) = service.into_split();
    let answers = tokio::io::copy(&mut from_service, &mut to_client);
    let requests = async {
        let mut buffer = vec![0; 64 << 10];
        while let Ok(length) = from_client.read(&mut buffer).await {
            let bytes = &buffer[..length];
            for (path, count) in [("POST /verify ", &seen.verify), ("POST /settle ", &seen.settle)] {
                let found = bytes.starts_with(path.as_bytes());
                count.fetch_add(usize::from(found), Ordering::SeqCst);
            }
            if seen.hangs.load(Ordering::SeqCst) {
                std::future::pending::<()>().await;
            }
            if length == 0 || to_service.write_all(bytes).await.is_err() {
                break;
            }
        }
    };
    tokio::select! { _ = answers => {}, () = requests => {} }
}
