//! Asking Redis something, in time.

use std::sync::Arc;

use redis::aio::MultiplexedConnection;
use redis::{Cmd, FromRedisValue, RedisError, ScriptInvocation};

use super::Redis;
use super::connect::RESPONSE_TIMEOUT;
use super::connection::Connection;
use crate::clock::while_running;
use crate::jobs::store::StoreError;

/// Whether a call may be sent again when its connection broke, so that nobody knows whether it arrived.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Again {
    /// It finds its own earlier effect, and says so.
    Harmless,
    /// The same; and it is not sent at all while the server may have forgotten something that it would have to know.
    Believed,
    /// It would take effect twice, or not know its own effect.
    Never,
}

/// Why a call has no answer.
enum Failed {
    /// It was not sent: the connection is to a server that another took the place of.
    Unsent,
    Redis(RedisError),
    Store(StoreError),
}

impl Redis {
    pub(super) async fn run<T: FromRedisValue>(
        &self,
        script: &ScriptInvocation<'_>,
        again: Again,
    ) -> Result<T, StoreError> {
        let once = |mut connection| async move { script.invoke_async(&mut connection).await };
        self.in_time(once, again).await
    }

    pub(super) async fn query<T: FromRedisValue>(
        &self,
        command: &Cmd,
        again: Again,
    ) -> Result<T, StoreError> {
        let once = |mut connection| async move { command.query_async(&mut connection).await };
        self.in_time(once, again).await
    }

    /// Runs a call, again if its connection broke and it allows that, all of it within the time-out. A connection that is of no
    /// use is let go of, so that the next call makes a new one.
    pub(super) async fn in_time<T, F>(
        &self,
        once: impl Fn(MultiplexedConnection) -> F,
        again: Again,
    ) -> Result<T, StoreError>
    where
        F: Future<Output = Result<T, RedisError>>,
    {
        let first = self.connections.here();
        let call = async {
            match self.once(&first, &once, again).await {
                Err(Failed::Unsent) => self.once(&self.connections.here(), &once, again).await,
                Err(Failed::Redis(error)) if again != Again::Never && error.is_connection_dropped() => {
                    self.once(&self.connections.here(), &once, again).await
                }
                outcome => outcome,
            }
        };
        match while_running(RESPONSE_TIMEOUT, call).await {
            Some(Ok(value)) => Ok(value),
            Some(Err(Failed::Store(error))) => Err(error),
            Some(Err(Failed::Redis(error))) => Err(StoreError::Away(error.to_string())),
            Some(Err(Failed::Unsent)) => Err(StoreError::Away("Redis changes its place".into())),
            None => {
                // Nobody answers, or nobody is there and nothing says so.
                self.give_up(&first);
                Err(StoreError::Away(format!("no answer from Redis within {RESPONSE_TIMEOUT:?}")))
            }
        }
    }

    async fn once<T, F>(
        &self,
        connection: &Arc<Connection>,
        once: impl Fn(MultiplexedConnection) -> F,
        again: Again,
    ) -> Result<T, Failed>
    where
        F: Future<Output = Result<T, RedisError>>,
    {
        // After whoever else has something to ask by now: what is asked together leaves in one write.
        tokio::task::yield_now().await;
        let live = self.live(connection).await.map_err(Failed::Store)?.ok_or(Failed::Unsent)?;
        if again == Again::Believed {
            // Asked with the connection in hand: it was made before anybody could ask over it.
            self.incarnation.believed().map_err(Failed::Store)?;
        }
        once(live.connection.clone()).await.map_err(|error| {
            if live.is_spoilt_by(&error) {
                self.forget(connection);
            }
            Failed::Redis(error)
        })
    }
}
