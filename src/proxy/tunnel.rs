//! Upgraded connections: bytes both ways until either end closes, nothing moves, or the process ends.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf, copy_bidirectional};
use tokio::time::{sleep, timeout};

use super::drain::{Drain, Kind};

/// How long either end may take to start speaking the new protocol.
const UPGRADE_TIME: Duration = Duration::from_secs(10);

/// What tunnels live by.
#[derive(Clone, Debug)]
pub(super) struct Tunnels {
    pub(super) drain: Drain,
    /// Closed after this without traffic.
    pub(super) idle: Duration,
    /// Closed this long after the process began to end.
    pub(super) drain_timeout: Duration,
}

impl Tunnels {
    /// Joins both ends, in a task, as soon as their connections have left HTTP.
    pub(super) fn open(&self, client: OnUpgrade, app: OnUpgrade) {
        let hold = self.drain.hold(Kind::Tunnel);
        let this = self.clone();
        tokio::spawn(async move {
            let _hold = hold;
            let Ok(Ok((client, app))) = timeout(UPGRADE_TIME, async { tokio::try_join!(client, app) }).await
            else {
                return;
            };
            this.run(TokioIo::new(client), TokioIo::new(app)).await;
        });
    }

    async fn run(
        &self,
        client: impl AsyncRead + AsyncWrite + Unpin,
        mut app: impl AsyncRead + AsyncWrite + Unpin,
    ) {
        let moved = Arc::new(AtomicU64::new(0));
        let mut client = Counted { io: client, moved: moved.clone() };
        let idle = async {
            let mut before = moved.load(Ordering::Relaxed);
            loop {
                // Looked at once a period: a tunnel lives for one to two of them without traffic.
                sleep(self.idle).await;
                let now = moved.load(Ordering::Relaxed);
                if std::mem::replace(&mut before, now) == now {
                    return;
                }
            }
        };
        let ending = async {
            self.drain.wait_started().await;
            sleep(self.drain_timeout).await;
        };
        tokio::select! {
            _ = copy_bidirectional(&mut client, &mut app) => {}
            () = idle => {}
            () = ending => {}
        }
    }
}

/// Counts the bytes that pass; all of a tunnel's pass the client's side.
struct Counted<I> {
    io: I,
    moved: Arc<AtomicU64>,
}

impl<I> Counted<I> {
    fn add(&self, bytes: usize) {
        self.moved.fetch_add(bytes as u64, Ordering::Relaxed);
    }
}

impl<I: AsyncRead + Unpin> AsyncRead for Counted<I> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<std::io::Result<()>> {
        let before = buf.filled().len();
        let polled = Pin::new(&mut self.io).poll_read(cx, buf);
        self.add(buf.filled().len().saturating_sub(before));
        polled
    }
}

impl<I: AsyncWrite + Unpin> AsyncWrite for Counted<I> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<std::io::Result<usize>> {
        let polled = Pin::new(&mut self.io).poll_write(cx, buf);
        if let Poll::Ready(Ok(written)) = &polled {
            self.add(*written);
        }
        polled
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}
