//! Asking Redis something, in time.

use redis::aio::ConnectionManager;
use redis::{Cmd, FromRedisValue, RedisError, ScriptInvocation};

use super::Redis;
use super::connect::RESPONSE_TIMEOUT;
use crate::clock::while_running;
use crate::jobs::store::StoreError;

/// Whether a call may be sent again when its connection broke, so that nobody knows whether it arrived.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Again {
    /// It finds its own earlier effect, and says so.
    Harmless,
    /// It would take effect twice, or not know its own effect.
    Never,
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
        once: impl Fn(ConnectionManager) -> F,
        again: Again,
    ) -> Result<T, StoreError>
    where
        F: Future<Output = Result<T, RedisError>>,
    {
        let connection = self.connections.here();
        let call = async {
            match once(connection.manager()?).await {
                Err(error) if again == Again::Harmless && error.is_connection_dropped() => {
                    once(connection.manager()?).await
                }
                outcome => outcome,
            }
        };
        match while_running(RESPONSE_TIMEOUT, call).await {
            Some(Ok(value)) => Ok(value),
            Some(Err(error)) => {
                if connection.is_spoilt_by(&error) {
                    self.connections.forget(&connection);
                }
                Err(StoreError::Away(error.to_string()))
            }
            None => {
                // Nobody answers, or nobody is there and nothing says so.
                self.connections.forget(&connection);
                Err(StoreError::Away(format!("no answer from Redis within {RESPONSE_TIMEOUT:?}")))
            }
        }
    }
}
