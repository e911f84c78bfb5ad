//! The sockets the gateway listens on: bound before anything runs, so port 0 works and a taken port is an error of the
//! start; or taken over from the process before.
//!
//! Each worker has a socket of its own for each address (`SO_REUSEPORT`), among which the kernel spreads new connections.

use std::net::{SocketAddr, TcpListener};
use std::os::fd::{IntoRawFd, RawFd};
use std::path::Path;
use std::sync::Arc;

use parking_lot::Mutex;
use pingora_core::server::{Fds, ListenFds};
use tokio::net::TcpSocket;
use tokio::runtime::Builder;
use tokio_rustls::TlsAcceptor;

use super::tls::{self, TlsError};
use crate::config::resolved::Edge;

/// As many sockets as pingora's hand-over passes on.
const MAX_SOCKETS: usize = 32;
/// Connections that wait until the server runs; then pingora says how many may.
const BACKLOG: u32 = 1024;

/// Sockets that are bound, and everything else a server needs before it runs.
pub struct Bound {
    sockets: Vec<(String, Socket)>,
    addrs: Vec<SocketAddr>,
    workers: usize,
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
    /// The sockets cannot be made.
    #[error("cannot make sockets: {0}")]
    Runtime(#[source] std::io::Error),
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
        let all = || edge.listen.iter().flat_map(|addr| (0..MAX_SOCKETS).map(|number| name(*addr, number)));
        fds.close_unclaimed(&all().collect());
        Self::with(edge, |name| fds.get(name).copied())
    }

    /// The addresses that are listened on, in the order of the configuration, with their ports.
    pub fn local_addrs(&self) -> &[SocketAddr] {
        &self.addrs
    }

    pub(super) fn tls(&self) -> Option<&TlsAcceptor> {
        self.tls.as_ref()
    }

    /// The names of each worker's sockets, and the sockets by name.
    pub(super) fn into_workers(self) -> (Vec<Vec<String>>, ListenFds) {
        let mut workers = vec![Vec::new(); self.workers];
        let mut fds = Fds::new();
        // Of sockets that were taken over there may be more than workers; one that nobody accepts from would swallow
        // connections.
        for (at, (name, socket)) in self.sockets.into_iter().enumerate() {
            fds.add(name.clone(), socket.into_raw());
            let worker = at % self.workers;
            workers.iter_mut().skip(worker).take(1).for_each(|names: &mut Vec<_>| names.push(name.clone()));
        }
        (workers, Arc::new(Mutex::new(fds)))
    }

    fn with(edge: &Edge, taken: impl Fn(&str) -> Option<RawFd>) -> Result<Self, BindError> {
        let tls = edge.tls.as_ref().map(tls::acceptor).transpose()?;
        let workers = threads(edge);
        let mut bound = Bound { sockets: Vec::new(), addrs: Vec::new(), workers, tls };
        // tokio alone can say SO_REUSEPORT without unsafe code, and it wants a runtime for the queue.
        let runtime = Builder::new_current_thread().enable_io().build().map_err(BindError::Runtime)?;
        let done = {
            let _inside = runtime.enter();
            edge.listen.iter().try_for_each(|addr| bound.add(*addr, &taken))
        };
        // Dropped, it would panic inside another runtime.
        runtime.shutdown_background();
        done.map(|()| bound)
    }

    /// Listens on one address, once for each worker.
    fn add(&mut self, addr: SocketAddr, taken: impl Fn(&str) -> Option<RawFd>) -> Result<(), BindError> {
        let failed = |source| BindError::Listen { addr, source };
        let taken = (0..MAX_SOCKETS).map_while(|number| taken(&name(addr, number)));
        let mut sockets: Vec<Socket> = taken.map(Socket::Theirs).collect();
        let mut addr = addr;
        if sockets.is_empty() {
            let first = listen(addr, false).map_err(failed)?;
            addr = first.local_addr().map_err(failed)?;
            sockets.push(Socket::Ours(first));
        }
        while sockets.len() < self.workers {
            sockets.push(Socket::Ours(listen(addr, true).map_err(failed)?));
        }
        self.addrs.push(addr);
        self.sockets
            .extend(sockets.into_iter().enumerate().map(|(number, socket)| (name(addr, number), socket)));
        Ok(())
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

/// Worker threads of a server with this configuration; also the number of pools of connections to the app.
pub fn threads(edge: &Edge) -> usize {
    let cores = || std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    edge.threads.unwrap_or_else(cores).clamp(1, (MAX_SOCKETS / edge.listen.len().max(1)).max(1))
}

/// What a socket is called in the table that is handed over.
fn name(addr: SocketAddr, number: usize) -> String {
    if number == 0 { addr.to_string() } else { format!("{addr}#{number}") }
}

/// `joins`: whether others listen on the address already, and may. The first does not, so that it fails where another
/// program is.
fn listen(addr: SocketAddr, joins: bool) -> std::io::Result<TcpListener> {
    let socket = if addr.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    socket.set_reuseaddr(true)?;
    if joins {
        socket.set_reuseport(true)?;
    }
    socket.bind(addr)?;
    socket.set_reuseport(true)?;
    socket.listen(BACKLOG)?.into_std()
}
