//! Asking Redis something, in time.

use std::pin::pin;

use redis::aio::ConnectionManager;
use redis::{Cmd, FromRedisValue, RedisError, ScriptInvocation};

use super::Redis;
use super::connect::RESPONSE_TIMEOUT;
use crate::jobs::store::StoreError;

/// The time-out is waited for in so many parts.
const PARTS: u32 = 10;

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
        match in_parts(call).await {
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

/// Waits for [`RESPONSE_TIMEOUT`] of the time in which this process runs. One that stood still finds its time over when it
/// goes on, with the answer there and not read yet; that takes a part of the time, not all of it.
async fn in_parts<T>(call: impl Future<Output = T>) -> Option<T> {
    let mut call = pin!(call);
    for _ in 0..PARTS {
        if let Ok(outcome) = tokio::time::timeout(RESPONSE_TIMEOUT / PARTS, &mut call).await {
            return Some(outcome);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::sync::oneshot;
    use tokio::time::{Instant, advance, sleep};

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn an_answer_that_came_while_the_process_stood_still_is_read() {
        let (answer, call) = oneshot::channel();
        let waiting = tokio::spawn(in_parts(call));
        sleep(RESPONSE_TIMEOUT / 20).await;
        // Whoever reads the connection gets his turn after the one who waits.
        advance(RESPONSE_TIMEOUT * 60).await;
        sleep(RESPONSE_TIMEOUT / 20).await;
        answer.send(1).unwrap();
        assert_eq!(waiting.await.unwrap(), Some(Ok(1)));
    }

    #[tokio::test(start_paused = true)]
    async fn nobody_is_waited_for_longer() {
        let began = Instant::now();
        assert_eq!(in_parts(std::future::pending::<()>()).await, None);
        let took = began.elapsed();
        assert!(took >= RESPONSE_TIMEOUT && took < RESPONSE_TIMEOUT + Duration::from_millis(50), "{took:?}");
    }
}
