//! The connections to a server, one for each runtime that asks it something, made when it first does, and anew where it broke.
//!
//! Each is looked at before anybody uses it: whether its server still keeps what it is given, and whether it is the one that was
//! there before.

use std::sync::{Arc, OnceLock, Weak};
use std::time::{Duration, Instant};

use futures_util::FutureExt;
use futures_util::future::{BoxFuture, Shared};
use redis::aio::MultiplexedConnection;
use redis::{PushInfo, PushKind, RedisError};
use tokio::sync::mpsc::UnboundedReceiver;

use super::server::Fresh;
use super::{Inner, Redis};
use crate::by_runtime::ByRuntime;
use crate::jobs::store::StoreError;

/// A connection whose server says that it does not serve is made anew this often, at most.
const RENEWED_EVERY: Duration = Duration::from_secs(1);

/// After a server was tried in vain, it is tried again.
const AGAIN: Duration = Duration::from_millis(100);

pub(super) type Connections = ByRuntime<Arc<Connection>>;

/// A connection, once it is made: by whoever asks first. The others wait for the same.
#[derive(Default)]
pub(super) struct Connection {
    making: OnceLock<Making>,
    made: OnceLock<Live>,
}

/// It runs to its end, whoever waits for it.
type Making = Shared<BoxFuture<'static, Result<(), StoreError>>>;

pub(super) struct Live {
    pub(super) connection: MultiplexedConnection,
    /// The number of the run it is to, if that is known.
    number: Option<u64>,
    since: Instant,
}

impl Redis {
    /// It is of no use any more. Whoever asks next makes another.
    pub(super) fn forget(&self, connection: &Arc<Connection>) {
        if connection.made.get().is_some() {
            self.incarnation.lost();
        }
        self.connections.forget(connection);
    }

    /// It did not answer. One that is still being made comes to its end by itself.
    pub(super) fn give_up(&self, connection: &Arc<Connection>) {
        if connection.made.get().is_some() {
            self.forget(connection);
        }
    }

    /// The connection itself, which may have to be made first. `None`, and it is forgotten: its server is not the one that
    /// counts any more.
    pub(super) async fn live<'c>(
        &self,
        connection: &'c Arc<Connection>,
    ) -> Result<Option<&'c Live>, StoreError> {
        if connection.made.get().is_none() {
            let making = connection.making.get_or_init(|| {
                let making = make(self.clone(), Arc::clone(connection)).boxed().shared();
                tokio::spawn(making.clone());
                making
            });
            if let Err(away) = making.clone().await {
                self.forget(connection);
                return Err(away);
            }
        }
        let live = connection.made.get().filter(|live| self.incarnation.is(live.number));
        if live.is_none() {
            self.forget(connection);
        }
        Ok(live)
    }

    /// Takes a connection in use, and whoever finds out first sees to a server that is another than before.
    pub(super) fn take(&self, connection: &Arc<Connection>, fresh: Fresh) {
        let met = self.incarnation.meets(fresh.run);
        let live = Live { connection: fresh.connection, number: met.number, since: Instant::now() };
        // There is one who makes it.
        let _ = connection.made.set(live);
        tokio::spawn(watch(Arc::downgrade(&self.0), Arc::downgrade(connection), fresh.pushes));
        if let Some(number) = met.another {
            tokio::spawn(self.clone().reassert(number));
        }
    }
}

async fn make(store: Redis, connection: Arc<Connection>) -> Result<(), StoreError> {
    let fresh = store.server.reach(false).await.map_err(|error| StoreError::Away(error.to_string()))?;
    store.take(&connection, fresh);
    Ok(())
}

/// Waits for the end of a connection, and makes the next at once: it is to be known soon what the server forgot.
async fn watch(store: Weak<Inner>, connection: Weak<Connection>, mut pushes: UnboundedReceiver<PushInfo>) {
    // None comes any more, either, once it was let go of because it gave no answer.
    while let Some(push) = pushes.recv().await {
        if push.kind == PushKind::Disconnection {
            if let (Some(store), Some(connection)) = (store.upgrade(), connection.upgrade()) {
                Redis(store).forget(&connection);
            }
            break;
        }
    }
    // Whether anybody asks meanwhile or not: the others wait for what this process knows, and not for long.
    while let Some(store) = store.upgrade().map(Redis) {
        if store.live(&store.connections.here()).await.is_ok() {
            return;
        }
        drop(store);
        tokio::time::sleep(AGAIN).await;
    }
}

impl Live {
    /// Whether the next call has to have another one: this broke, or its server did not do as asked. It may be another's
    /// replica by now. Any answer of a server's counts, once in a while.
    pub(super) fn is_spoilt_by(&self, error: &RedisError) -> bool {
        let broke = error.is_io_error() || error.is_unrecoverable_error();
        broke || error.code() == Some("READONLY") || self.since.elapsed() >= RENEWED_EVERY
    }
}
