//! The process's client side: pingora-core listens and accepts, hyper speaks HTTP on what it accepts.
//!
//! Each worker is a thread with a runtime and listening sockets of its own ([`super::bind`]): what
//! happens on a connection, its app's side included, happens on the thread that accepted it, and no two threads share a
//! queue, a pool or a cache line for it.

use std::pin::pin;
use std::sync::Arc;
use std::thread::JoinHandle;

use async_trait::async_trait;
use futures_util::future::BoxFuture;
use futures_util::stream::{FuturesUnordered, StreamExt};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use pingora_core::apps::ServerApp;
use pingora_core::listeners::{ConnectionFilter, L4BufferSettings, ListenerConfig};
use pingora_core::protocols::Stream;
use pingora_core::server::configuration::ServerConf;
use pingora_core::server::{ListenFds, RunArgs, Server, ShutdownWatch};
use pingora_core::services::Service as _;
use pingora_core::services::listening::Service as Listening;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::runtime::Builder;
use tokio::sync::watch;
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;

use super::bind::Bound;
use super::drain::{Drain, Kind};
use super::gateway::{Connection, Gateway};
use super::observe::Refusal;
use super::peer::{Peer, is_trusted};
use super::stop::{Stop, Watch};
use super::watch::{Activity, Expired, Limits, Watched};

impl Bound {
    /// Serves until told to stop; blocks this thread. The program goes on after it: nothing exits.
    pub fn run(self, gateway: Gateway, stop: Stop) {
        let edge = gateway.edge.clone();
        let drain = gateway.drain.clone();
        let accepting = watch::Sender::new(false);
        let (ending, ended) = watch::channel(());
        let app = App::new(gateway, self.tls().cloned());
        let (workers, sockets) = self.into_workers();
        let mut threads = Vec::new();
        for (number, names) in workers.into_iter().enumerate() {
            let mut listening = Listening::new(format!("edge-{number}"), app.clone());
            listening.set_connection_filter(Arc::new(Cap {
                drain: drain.clone(),
                max: edge.max_connections.max(1),
            }));
            for name in names {
                // hyper and rustls buffer for themselves; pingora's 64 KiB a connection would be wasted.
                listening.add_listener(ListenerConfig::tcp(name).l4_buffer(L4BufferSettings::unbuffered()));
            }
            let worker = Worker {
                listening,
                sockets: sockets.clone(),
                accepting: accepting.subscribe(),
                ended: ended.clone(),
            };
            match worker.start() {
                Ok(thread) => threads.push(thread),
                Err(error) => {
                    // Its sockets would swallow connections.
                    tracing::error!(%error, "cannot start a worker; not serving");
                    return;
                }
            }
        }
        let watch = Watch {
            stop,
            drain,
            accepting,
            sockets,
            upgrade_socket: edge.upgrade_socket,
            drain_timeout: edge.drain_timeout,
            tunnel_drain_timeout: edge.tunnel_drain_timeout,
        };
        // Only used by pingora's own ways to stop, which ours never takes.
        let (grace_period_seconds, graceful_shutdown_timeout_seconds) = (Some(0), Some(0));
        let conf =
            ServerConf { grace_period_seconds, graceful_shutdown_timeout_seconds, ..ServerConf::default() };
        let server = Server::new_with_opt_and_conf(None, conf);
        server.run(RunArgs { shutdown_signal: Box::new(watch) });
        drop(ending);
        for thread in threads {
            // One that panicked has ended, too.
            let _ = thread.join();
        }
    }
}

/// A thread of its own with pingora's listening service, our sockets, and our word on when to stop accepting.
///
/// pingora would start such threads itself (`work_stealing = false`), but gives each connection to a thread at random, also to
/// another than its socket was registered by; and what it keeps for a thread is still there when a second server in the
/// process gets a thread with the same number, whose connections are then given to a runtime that is gone.
struct Worker {
    listening: Listening<App>,
    sockets: ListenFds,
    accepting: watch::Receiver<bool>,
    ended: watch::Receiver<()>,
}

impl Worker {
    fn start(self) -> std::io::Result<JoinHandle<()>> {
        let runtime = Builder::new_current_thread().enable_all().build()?;
        let name = self.listening.name().to_owned();
        std::thread::Builder::new().name(name).spawn(move || {
            runtime.block_on(self.run());
            // Cuts what is left; a look-up of a name does not hold it up.
            runtime.shutdown_background();
        })
    }

    async fn run(mut self) {
        // Ends with accepting, and leaves what was accepted running.
        self.listening.start_service(Some(self.sockets), self.accepting, 1).await;
        // An error: the sender is gone, and with it the server.
        let _ = self.ended.changed().await;
    }
}

/// Lets no more than so many connections in. The next one of each worker waits, accepted; those after it in the kernel.
#[derive(Debug)]
struct Cap {
    drain: Drain,
    max: usize,
}

#[async_trait]
impl ConnectionFilter for Cap {
    async fn should_accept(&self, _addr: Option<&std::net::SocketAddr>) -> bool {
        self.drain.below(Kind::Connection, self.max).await;
        true
    }
}

/// What is done with an accepted connection.
#[derive(Clone)]
struct App {
    gateway: Arc<Gateway>,
    tls: Option<TlsAcceptor>,
    http: auto::Builder<TokioExecutor>,
    limits: Limits,
}

impl App {
    fn new(gateway: Gateway, tls: Option<TlsAcceptor>) -> Self {
        let edge = &gateway.edge;
        let limits =
            Limits { header: edge.header_timeout, idle: edge.idle_timeout, write: edge.body_timeout };
        let mut http = auto::Builder::new(TokioExecutor::new());
        // More than that, so that a head which is a little too large gets our answer instead of hyper's bare one. Not much more:
        // what arrives of a body is read in pieces of this size.
        let header_room = edge.max_header_bytes.saturating_add(MIN_READ_BUFFER);
        // The deadlines are ours (`super::watch`): hyper's would count idle time as the head's.
        http.http1().timer(TokioTimer::new()).header_read_timeout(None).max_buf_size(header_room);
        http.http2()
            .timer(TokioTimer::new())
            // Which counts 32 bytes for each field beside its own (RFC 9113 section 6.5.2).
            .max_header_list_size(u32::try_from(header_room.saturating_mul(2)).unwrap_or(u32::MAX))
            .max_concurrent_streams(H2_STREAMS)
            .keep_alive_interval(None);
        App { gateway: Arc::new(gateway), tls, http, limits }
    }

    async fn serve<I>(&self, io: I, peer: Peer)
    where
        I: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        let activity = Arc::new(Activity::new());
        let connection =
            Arc::new(Connection { gateway: self.gateway.clone(), peer, activity: activity.clone() });
        let service = service_fn(move |request| connection.clone().serve(request));
        let io = TokioIo::new(Watched::new(io, activity.clone()));
        let mut served = pin!(self.http.serve_connection_with_upgrades(io, service));
        // Polled only when it is these that woke, not with each byte that moves.
        let asides: FuturesUnordered<BoxFuture<'_, Option<Expired>>> = FuturesUnordered::new();
        asides.push(Box::pin(async { Some(activity.expired(&self.limits).await) }));
        asides.push(Box::pin(async {
            self.gateway.drain.wait_started().await;
            None
        }));
        let mut asides = asides;
        loop {
            tokio::select! {
                biased;
                done = served.as_mut() => {
                    if done.is_err_and(|error| is_parse_error(&*error)) {
                        self.refused(Refusal::Malformed);
                    }
                    return;
                }
                Some(aside) = asides.next() => match aside {
                    None => served.as_mut().graceful_shutdown(),
                    Some(Expired::Idle) => {
                        // HTTP/2 clients are told; one that does not go then is cut.
                        served.as_mut().graceful_shutdown();
                        let _ = timeout(GOAWAY_TIME, served.as_mut()).await;
                        return;
                    }
                    Some(Expired::Header) => return self.refused(Refusal::SlowHeader),
                    Some(Expired::Write) => return self.refused(Refusal::SlowReader),
                },
            }
        }
    }

    fn refused(&self, refusal: Refusal) {
        if let Some(observe) = &self.gateway.observe {
            observe.refused(refusal);
        }
    }
}

/// hyper's least read buffer.
const MIN_READ_BUFFER: usize = 16 * 1024;
/// Requests at once on one HTTP/2 connection.
const H2_STREAMS: u32 = 200;
/// How long an idle HTTP/2 client may take to go after it was told to.
const GOAWAY_TIME: std::time::Duration = std::time::Duration::from_secs(1);

fn is_parse_error(error: &(dyn std::error::Error + 'static)) -> bool {
    error.downcast_ref::<hyper::Error>().is_some_and(|error| error.is_parse())
}

#[async_trait]
impl ServerApp for App {
    async fn process_new(self: &Arc<Self>, stream: Stream, _shutdown: &ShutdownWatch) -> Option<Stream> {
        let _hold = self.gateway.drain.hold(Kind::Connection);
        if let Some(observe) = &self.gateway.observe {
            observe.accepted();
        }
        let digest = stream.get_socket_digest();
        let addr =
            digest.as_ref().and_then(|digest| digest.peer_addr()).and_then(|addr| addr.as_inet().copied())?;
        let trusted = is_trusted(&self.gateway.edge.trusted_peers, addr.ip());
        let peer = Peer::new(addr, self.tls.is_some(), trusted);
        match &self.tls {
            None => self.serve(stream, peer).await,
            Some(tls) => match timeout(self.limits.header, tls.accept(stream)).await {
                Ok(Ok(stream)) => self.serve(stream, peer).await,
                // Scanners make many of these; they are counted, not logged.
                Ok(Err(_)) | Err(_) => self.refused(Refusal::Handshake),
            },
        }
        None
    }
}
