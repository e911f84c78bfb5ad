//! The process's client side: pingora-core listens and accepts, hyper speaks HTTP on what it accepts.
//!
//! The sockets are bound before anything runs, so port 0 works and a taken port is an error of the start.

use std::net::{SocketAddr, TcpListener};
use std::os::fd::{IntoRawFd, RawFd};
use std::path::Path;
use std::pin::pin;
use std::sync::Arc;

use async_trait::async_trait;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use parking_lot::Mutex;
use pingora_core::apps::ServerApp;
use pingora_core::listeners::{ConnectionFilter, L4BufferSettings, ListenerConfig};
use pingora_core::protocols::Stream;
use pingora_core::server::configuration::ServerConf;
use pingora_core::server::{Fds, ListenFds, RunArgs, Server, ShutdownWatch};
use pingora_core::services::Service;
use pingora_core::services::listening::Service as Listening;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::watch;
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;

use super::drain::{Drain, Kind};
use super::gateway::{Connection, Gateway};
use super::observe::Refusal;
use super::peer::{Peer, is_trusted};
use super::stop::{Stop, Watch};
use super::tls::{self, TlsError};
use super::watch::{Activity, Expired, Limits, Watched};
use crate::config::resolved::Edge;

/// Sockets that are bound, and everything else a server needs before it runs.
pub struct Bound {
    sockets: Vec<Socket>,
    addrs: Vec<SocketAddr>,
    tls: Option<TlsAcceptor>,
}

#[derive(Debug)]
enum Socket {
    Ours(TcpListener),
    /// Taken over from another process.
    Theirs(RawFd),
}

/// Why a server cannot start.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    /// A socket cannot be bound.
    #[error("cannot listen on {addr}: {source}")]
    Listen {
        /// Where.
        addr: SocketAddr,
        /// Why.
        source: std::io::Error,
    },
    /// TLS is configured and cannot be offered.
    #[error("cannot serve TLS: {0}")]
    Tls(#[from] TlsError),
    /// No process handed over its sockets.
    #[error("no running process handed over its listeners: {0}")]
    TakeOver(String),
}

impl Bound {
    /// Binds the configured addresses.
    pub fn new(edge: &Edge) -> Result<Self, BindError> {
        Self::with(edge, |_| None)
    }

    /// Takes the listeners of the process that was sent QUIT, waiting some seconds for it; binds those of
    /// the configured addresses which it did not have. A listener on port 0 cannot be taken over.
    pub fn take_over(edge: &Edge, upgrade_socket: &Path) -> Result<Self, BindError> {
        let mut fds = Fds::new();
        let path =
            upgrade_socket.to_str().ok_or_else(|| BindError::TakeOver("the path is not UTF-8".into()))?;
        fds.get_from_sock(path).map_err(|error| BindError::TakeOver(error.to_string()))?;
        let wanted = edge.listen.iter().map(SocketAddr::to_string).collect();
        fds.close_unclaimed(&wanted);
        Self::with(edge, |addr| fds.get(&addr.to_string()).copied())
    }

    /// The addresses that are listened on, in the order of the configuration, with their ports.
    pub fn local_addrs(&self) -> &[SocketAddr] {
        &self.addrs
    }

    /// Serves until told to stop; blocks this thread. The program goes on after it: nothing exits.
    pub fn run(self, gateway: Gateway, stop: Stop) {
        let edge = gateway.edge.clone();
        let drain = gateway.drain.clone();
        let conf = ServerConf {
            threads: threads(&edge),
            // Only used by pingora's own ways to stop, which ours never takes.
            grace_period_seconds: Some(0),
            graceful_shutdown_timeout_seconds: Some(0),
            ..ServerConf::default()
        };
        let mut server = Server::new_with_opt_and_conf(None, conf);

        let mut listening = Listening::new("edge".to_owned(), App::new(gateway, self.tls));
        listening
            .set_connection_filter(Arc::new(Cap { drain: drain.clone(), max: edge.max_connections.max(1) }));
        let mut sockets = Vec::new();
        for (socket, addr) in self.sockets.into_iter().zip(&self.addrs) {
            // hyper and rustls buffer for themselves; pingora's 64 KiB a connection would be wasted.
            listening.add_listener(
                ListenerConfig::tcp(addr.to_string()).l4_buffer(L4BufferSettings::unbuffered()),
            );
            sockets.push((addr.to_string(), socket.into_raw()));
        }
        let accepting = watch::Sender::new(false);
        let shared = Arc::new(Mutex::new(None));
        server.add_service(Edgewise {
            listening,
            sockets,
            accepting: accepting.subscribe(),
            shared: shared.clone(),
        });
        let watch = Watch {
            stop,
            drain,
            accepting,
            sockets: shared,
            upgrade_socket: edge.upgrade_socket,
            drain_timeout: edge.drain_timeout,
            tunnel_drain_timeout: edge.tunnel_drain_timeout,
        };
        server.run(RunArgs { shutdown_signal: Box::new(watch) });
    }

    fn with(edge: &Edge, taken: impl Fn(&SocketAddr) -> Option<RawFd>) -> Result<Self, BindError> {
        let tls = edge.tls.as_ref().map(tls::acceptor).transpose()?;
        let mut sockets = Vec::new();
        let mut addrs = Vec::new();
        for addr in &edge.listen {
            if let Some(fd) = taken(addr) {
                sockets.push(Socket::Theirs(fd));
                addrs.push(*addr);
                continue;
            }
            let failed = |source| BindError::Listen { addr: *addr, source };
            let listener = TcpListener::bind(addr).map_err(failed)?;
            listener.set_nonblocking(true).map_err(failed)?;
            addrs.push(listener.local_addr().map_err(failed)?);
            sockets.push(Socket::Ours(listener));
        }
        Ok(Bound { sockets, addrs, tls })
    }
}

impl Socket {
    fn into_raw(self) -> RawFd {
        match self {
            Socket::Ours(listener) => listener.into_raw_fd(),
            Socket::Theirs(fd) => fd,
        }
    }
}

/// Worker threads of a server with this configuration; also the number of clients towards the app.
pub fn threads(edge: &Edge) -> usize {
    let cores = || std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    edge.threads.unwrap_or_else(cores).max(1)
}

/// pingora's listening service, with our sockets and our word on when to stop accepting.
struct Edgewise {
    listening: Listening<App>,
    sockets: Vec<(String, RawFd)>,
    accepting: watch::Receiver<bool>,
    shared: Arc<Mutex<Option<ListenFds>>>,
}

#[async_trait]
impl Service for Edgewise {
    async fn start_service(
        &mut self,
        fds: Option<ListenFds>,
        _shutdown: ShutdownWatch,
        listeners_per_fd: usize,
    ) {
        if let Some(fds) = &fds {
            let mut table = fds.lock();
            for (addr, fd) in self.sockets.drain(..) {
                table.add(addr, fd);
            }
        }
        self.shared.lock().clone_from(&fds);
        self.listening.start_service(fds, self.accepting.clone(), listeners_per_fd).await;
    }

    fn name(&self) -> &str {
        "edge"
    }
}

/// Lets no more than so many connections in. The next one waits, accepted; those after it in the kernel.
#[derive(Debug)]
struct Cap {
    drain: Drain,
    max: usize,
}

#[async_trait]
impl ConnectionFilter for Cap {
    async fn should_accept(&self, _addr: Option<&SocketAddr>) -> bool {
        self.drain.below(Kind::Connection, self.max).await;
        true
    }
}

/// What is done with an accepted connection.
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
        // Twice, so that a head which is a little too large gets our answer instead of hyper's bare one.
        let header_room = edge.max_header_bytes.saturating_mul(2).max(MIN_READ_BUFFER);
        // The deadlines are ours (`super::watch`): hyper's would count idle time as the head's.
        http.http1().timer(TokioTimer::new()).header_read_timeout(None).max_buf_size(header_room);
        http.http2()
            .timer(TokioTimer::new())
            .max_header_list_size(u32::try_from(header_room).unwrap_or(u32::MAX))
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
        let service = service_fn(move |request| {
            let connection = connection.clone();
            async move { Ok::<_, std::convert::Infallible>(connection.serve(request).await) }
        });
        let io = TokioIo::new(Watched::new(io, activity.clone()));
        let mut served = pin!(self.http.serve_connection_with_upgrades(io, service));
        let mut expired = pin!(activity.expired(&self.limits));
        let mut ending = pin!(self.gateway.drain.wait_started());
        let mut told = false;
        loop {
            tokio::select! {
                biased;
                done = served.as_mut() => {
                    if done.is_err_and(|error| is_parse_error(&*error)) {
                        self.refused(Refusal::Malformed);
                    }
                    return;
                }
                expired = expired.as_mut() => {
                    match expired {
                        Expired::Idle => {}
                        Expired::Header => self.refused(Refusal::SlowHeader),
                        Expired::Write => self.refused(Refusal::SlowReader),
                    }
                    if expired == Expired::Idle {
                        // HTTP/2 clients are told; one that does not go then is cut.
                        served.as_mut().graceful_shutdown();
                        let _ = timeout(GOAWAY_TIME, served.as_mut()).await;
                    }
                    return;
                }
                () = ending.as_mut(), if !told => {
                    told = true;
                    served.as_mut().graceful_shutdown();
                }
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
