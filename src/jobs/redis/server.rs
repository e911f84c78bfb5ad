//! The server: a connection to it, and whether it may be trusted with jobs.

use std::borrow::Cow;
use std::time::Duration;

use redis::aio::MultiplexedConnection;
use redis::{AsyncConnectionConfig, Client, ErrorKind, PushInfo, RedisError};
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};

use super::connect::{OLDEST, OpenError, RESPONSE_TIMEOUT, refusal};
use super::sentinel::Sentinels;
use crate::clock::while_running;

/// Commands waiting to be written to the connection, at most; further ones wait their turn.
const PIPELINE: usize = 1024;

/// Some of the Sentinels may not be there, and whom they name may not be.
const SENTINELS_TIMEOUT: Duration = Duration::from_secs(3);

/// How often a server that is not there is tried again before whoever waits is told, and how long after each try.
const PAUSES: [Duration; 3] =
    [Duration::from_millis(50), Duration::from_millis(100), Duration::from_millis(200)];

/// Where it is, or who knows that.
pub(super) struct Server {
    place: Place,
    /// What it is called.
    address: String,
}

enum Place {
    At(Client),
    KnownTo(Sentinels),
}

/// A connection that nobody has used yet, to a server that was found fit just now.
pub(super) struct Fresh {
    pub(super) connection: MultiplexedConnection,
    /// Says when it broke.
    pub(super) pushes: UnboundedReceiver<PushInfo>,
    /// Which run of which server it is to. `None`: it may not be asked.
    pub(super) run: Option<String>,
}

impl Server {
    pub(super) fn at(client: Client) -> Self {
        let address = address(&client);
        Server { place: Place::At(client), address }
    }

    pub(super) fn known_to(sentinels: Sentinels) -> Self {
        let address = sentinels.name();
        Server { place: Place::KnownTo(sentinels), address }
    }

    pub(super) fn address(&self) -> &str {
        &self.address
    }

    /// A new connection, to a server that may be away for a moment. `first`: to be warned of what is not as it should be.
    pub(super) async fn reach(&self, first: bool) -> Result<Fresh, OpenError> {
        for pause in PAUSES {
            match self.connect(first).await {
                // Sentinels may name one that is a replica by now.
                Err(OpenError::Away { .. } | OpenError::Denied { .. } | OpenError::Replica { .. }) => {
                    tokio::time::sleep(pause).await
                }
                reached => return reached,
            }
        }
        self.connect(first).await
    }

    async fn connect(&self, first: bool) -> Result<Fresh, OpenError> {
        let client = match &self.place {
            Place::At(client) => Cow::Borrowed(client),
            Place::KnownTo(sentinels) => {
                let found = while_running(SENTINELS_TIMEOUT, sentinels.primary()).await;
                let late = || away(&self.address, &format!("no answer within {SENTINELS_TIMEOUT:?}"));
                Cow::Owned(found.ok_or_else(late)?.map_err(|error| refusal(&self.address, &error))?)
            }
        };
        let address = address(&client);
        let (sender, pushes) = unbounded_channel();
        let refused = |error: &RedisError| refusal(&address, error);
        let config = config().set_push_sender(sender);
        let opened = client.get_multiplexed_async_connection_with_config(&config).await;
        let mut connection = opened.map_err(|error| refused(&error))?;
        // One question for all: CONFIG GET, which would also know, is forbidden by most hosted offers.
        let info = redis::cmd("INFO");
        let answer = while_running(RESPONSE_TIMEOUT, info.query_async::<String>(&mut connection)).await;
        let run = match answer {
            Some(Ok(info)) => check(&address, &info, first)?,
            Some(Err(error)) if error.kind() == ErrorKind::Server(redis::ServerErrorKind::NoPerm) => {
                if first {
                    tracing::warn!(
                        address = self.address,
                        "this Redis user may not run INFO, so it is not known whether \
                        the server is set to evict jobs (maxmemory-policy), or to lose them in a crash (appendonly), and \
                        every connection that breaks counts as a crash of it"
                    );
                }
                None
            }
            Some(Err(error)) => return Err(refused(&error)),
            None => return Err(away(&address, &format!("no answer within {RESPONSE_TIMEOUT:?}"))),
        };
        Ok(Fresh { connection, pushes, run })
    }
}

fn address(client: &Client) -> String {
    client.get_connection_info().addr().to_string()
}

fn config() -> AsyncConnectionConfig {
    AsyncConnectionConfig::new()
        .set_connection_timeout(Some(RESPONSE_TIMEOUT))
        // Whoever asks sees to it: a second timer would do nothing but run.
        .set_response_timeout(None::<Duration>)
        .set_pipeline_buffer_size(PIPELINE)
}

fn away(address: &str, reason: &str) -> OpenError {
    OpenError::Away { address: address.to_owned(), reason: reason.to_owned() }
}

/// Whether the server that said `info` of itself can be trusted with jobs, and what it calls this run of itself.
fn check(address: &str, info: &str, first: bool) -> Result<Option<String>, OpenError> {
    let field = |name: &str| {
        let value = |line: &'_ str| line.strip_prefix(name)?.strip_prefix(':').map(str::to_owned);
        info.lines().find_map(value)
    };
    if let Some(found) = field("redis_version") {
        let mut numbers = found.split('.').map(|number| number.parse().unwrap_or(0));
        if (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0)) < OLDEST {
            return Err(OpenError::TooOld { found });
        }
    }
    if field("redis_mode").as_deref() == Some("cluster") {
        return Err(OpenError::Unsupported("Cluster"));
    }
    if field("role").as_deref() == Some("slave") {
        return Err(OpenError::Replica { address: address.to_owned() });
    }
    if field("loading").as_deref() == Some("1") {
        return Err(away(address, "it is loading what it has on disk"));
    }
    match field("maxmemory_policy") {
        Some(policy) if policy != "noeviction" => return Err(OpenError::Evicts { policy }),
        None if first => {
            tracing::warn!(%address, "Redis does not say its maxmemory-policy; it must be noeviction");
        }
        Some(_) | None => {}
    }
    if first && field("aof_enabled").as_deref() != Some("1") {
        tracing::warn!(%address, "Redis has appendonly off: a crash of it may lose jobs that are paid for");
    }
    // A server that was a replica meanwhile, and had to take what its primary had, has the id of another history.
    let history = field("master_replid").unwrap_or_default();
    Ok(field("run_id").map(|run| format!("{run} {history}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn checked(lines: &[&str]) -> Result<Option<String>, OpenError> {
        check("host:6379", &lines.join("\r\n"), true)
    }

    #[test]
    fn a_server_that_keeps_what_it_is_given_is_taken() {
        for version in ["6.0.0", "6.2.14", "7.0.15", "10.1.0"] {
            let version = format!("redis_version:{version}");
            let lines = ["# Server", &version, "redis_mode:standalone", "role:master"];
            assert!(checked(&[&lines[..], &["maxmemory_policy:noeviction"]].concat()).is_ok(), "{version}");
        }
        assert!(checked(&[]).is_ok(), "a server that says nothing is only warned of");
    }

    #[test]
    fn a_server_that_would_lose_jobs_is_refused() {
        let evicts = checked(&["redis_version:7.0.15", "maxmemory_policy:allkeys-lru"]);
        assert!(matches!(evicts, Err(OpenError::Evicts { policy }) if policy == "allkeys-lru"));
        assert!(
            matches!(checked(&["redis_version:5.0.14"]), Err(OpenError::TooOld { found }) if found == "5.0.14")
        );
        assert!(matches!(checked(&["redis_mode:cluster"]), Err(OpenError::Unsupported("Cluster"))));
        assert!(matches!(checked(&["role:slave"]), Err(OpenError::Replica { .. })));
        assert!(matches!(checked(&["loading:1"]), Err(OpenError::Away { .. })));
    }

    #[test]
    fn a_run_is_told_from_another_and_from_one_with_another_history() {
        let run = |run: &str, history: &str| {
            checked(&[&format!("run_id:{run}"), &format!("master_replid:{history}")]).unwrap()
        };
        assert_eq!(run("a", "x"), run("a", "x"));
        assert!(run("a", "x") != run("b", "x") && run("a", "x") != run("a", "y"));
        assert_eq!(checked(&["role:master"]).unwrap(), None, "one that does not say");
    }
}
