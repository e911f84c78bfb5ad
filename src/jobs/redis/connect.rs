//! Connecting, and refusing a server that would lose jobs.

use std::sync::Arc;
use std::time::{Duration, Instant};

use redis::aio::{ConnectionManager, ConnectionManagerConfig};
use redis::io::tcp::TcpSettings;
use redis::io::tcp::socket2::TcpKeepalive;
use redis::{Client, ConnectionInfo, ErrorKind, IntoConnectionInfo, ProtocolVersion, RedisError};

use super::keys::Keys;
use crate::by_runtime::ByRuntime;

/// A command that has no answer by then has an unknown outcome.
pub(super) const RESPONSE_TIMEOUT: Duration = Duration::from_secs(1);

/// The whole of connecting, name lookup and reconnection attempts included.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// A connection that is refused is made anew this often, at most.
const RENEWED_EVERY: Duration = Duration::from_secs(1);

/// An idle connection is tried after this long, so that one whose other end is gone is found out before it is needed.
const KEEPALIVE: Duration = Duration::from_secs(10);

/// What was sent is acknowledged by then, or the connection is dead.
#[cfg(target_os = "linux")]
const UNACKNOWLEDGED: Duration = Duration::from_secs(5);

/// RESP3 is what tells us of a broken connection before the next command does.
const OLDEST: (u32, u32) = (6, 0);

/// Commands waiting to be written to the connection, at most; further ones wait their turn.
const PIPELINE: usize = 1024;

/// Why the Redis store cannot be used. None of them shows the URL: it may hold a password.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The URL does not parse, or its scheme is not one of `redis`, `rediss` and `unix`.
    #[error(
        "the Redis URL is not usable: {0}; write redis://user:password@host:port/db, or rediss:// for TLS"
    )]
    Url(String),
    /// The URL or the server is for Sentinel or Cluster.
    #[error("Redis {0} is not supported yet; give the URL of one Redis server")]
    Unsupported(&'static str),
    /// The prefix would break the keys' hash tag.
    #[error("the Redis key prefix must not be empty or contain {{ or }}")]
    Prefix,
    /// It cannot be reached.
    #[error("Redis at {address} cannot be reached: {reason}")]
    Away {
        /// Host and port.
        address: String,
        /// What the client library said.
        reason: String,
    },
    /// It does not let us in, or not do what we must.
    #[error("Redis at {address} refuses access: {reason}; check the user and password in the URL")]
    Denied {
        /// Host and port.
        address: String,
        /// What the server said.
        reason: String,
    },
    /// It is too old.
    #[error("Redis {found} is too old; {}.{} or newer is needed", OLDEST.0, OLDEST.1)]
    TooOld {
        /// The server's version.
        found: String,
    },
    /// It may throw jobs away to make room.
    #[error("Redis has maxmemory-policy {policy} and may evict jobs that are paid for: set it to noeviction")]
    Evicts {
        /// The server's policy.
        policy: String,
    },
    /// It takes no writes.
    #[error("Redis at {address} is a replica; give the URL of its primary")]
    Replica {
        /// Host and port.
        address: String,
    },
    /// Builds before this one kept jobs there in a way that is not read any more.
    #[error(
        "Redis has jobs under the key prefix {prefix} that an earlier build laid out otherwise, and this one would not see: \
         let them come to rest and pay what is owed under that build, then begin with another store.prefix and another wallet key"
    )]
    OldLayout {
        /// The prefix.
        prefix: String,
    },
}

/// The connections to a server, one for each runtime that asks it something, made when it first does.
pub(super) type Connections = ByRuntime<Arc<Connection>>;

/// A connection that is made anew by itself where it breaks: but not where that is not seen, nor where the server did not let it
/// in.
pub(super) struct Connection {
    manager: Result<ConnectionManager, RedisError>,
    made: Instant,
}

impl Connection {
    fn new(client: Client) -> Self {
        Connection {
            manager: ConnectionManager::new_lazy_with_config(client, config()),
            made: Instant::now(),
        }
    }

    pub(super) fn manager(&self) -> Result<ConnectionManager, RedisError> {
        self.manager.clone()
    }

    /// Whether the next call has to have another one. What a server says when it does not let us in is kept, and is said again to
    /// each call without asking it; nothing tells it from what it says to a call. So any answer of a server's counts, once in a
    /// while.
    pub(super) fn is_spoilt_by(&self, error: &RedisError) -> bool {
        !error.is_io_error() && self.made.elapsed() >= RENEWED_EVERY
    }
}

/// Connects to the server at `url`, having checked that it will keep what it is given, and that nothing is at `prefix` that this
/// build would overlook.
pub(super) async fn connect(url: &str, prefix: &str) -> Result<Connections, OpenError> {
    let info = parse(url)?;
    let address = info.addr().to_string();
    let away = |reason: String| OpenError::Away { address: address.clone(), reason };
    let connecting = async {
        let client = Client::open(info).map_err(|error| OpenError::Url(error.to_string()))?;
        let connections = Connections::new(move || Arc::new(Connection::new(client.clone())));
        let mut connection = connections.here().manager().map_err(|error| refusal(&address, &error))?;
        // One question for all: CONFIG GET, which would also know, is forbidden by most hosted offers.
        let answer: Result<String, RedisError> = redis::cmd("INFO").query_async(&mut connection).await;
        match answer {
            Ok(info) => check(&address, &info)?,
            Err(error) if error.kind() == ErrorKind::Server(redis::ServerErrorKind::NoPerm) => {
                tracing::warn!(%address, "this Redis user may not run INFO, so it is not known whether the server is \
                    set to evict jobs (maxmemory-policy), or to lose them in a crash (appendonly)");
            }
            Err(error) => return Err(refusal(&address, &error)),
        }
        let old = redis::cmd("EXISTS").arg(Keys::new(prefix).old_layout()).query_async(&mut connection).await;
        match old.map_err(|error| refusal(&address, &error))? {
            0_u64 => Ok(connections),
            _ => Err(OpenError::OldLayout { prefix: prefix.to_owned() }),
        }
    };
    let timeout = tokio::time::timeout(CONNECT_TIMEOUT, connecting);
    timeout.await.unwrap_or_else(|_| Err(away(format!("no answer within {CONNECT_TIMEOUT:?}"))))
}

fn parse(url: &str) -> Result<ConnectionInfo, OpenError> {
    let scheme = url.split_once("://").map_or("", |(scheme, _)| scheme);
    if scheme.contains("sentinel") {
        return Err(OpenError::Unsupported("Sentinel"));
    }
    // A list of hosts is how Cluster nodes are written.
    let authority = url.split_once("://").map_or("", |(_, rest)| rest.split('/').next().unwrap_or(""));
    let hosts = authority.rsplit_once('@').map_or(authority, |(_, hosts)| hosts);
    if scheme.contains("cluster") || hosts.contains(',') {
        return Err(OpenError::Unsupported("Cluster"));
    }
    let info = url.into_connection_info().map_err(|error| OpenError::Url(error.to_string()))?;
    let settings = info.redis_settings().clone().set_protocol(ProtocolVersion::RESP3);
    Ok(info.set_redis_settings(settings).set_tcp_settings(tcp()))
}

fn tcp() -> TcpSettings {
    let keepalive = TcpKeepalive::new().with_time(KEEPALIVE).with_interval(KEEPALIVE / 5);
    let settings = TcpSettings::default().set_nodelay(true).set_keepalive(keepalive);
    #[cfg(target_os = "linux")]
    let settings = settings.set_user_timeout(UNACKNOWLEDGED);
    settings
}

fn config() -> ConnectionManagerConfig {
    ConnectionManagerConfig::new()
        .set_connection_timeout(Some(RESPONSE_TIMEOUT))
        // Whoever asks sees to it: a second timer would do nothing but run.
        .set_response_timeout(None)
        .set_number_of_retries(3)
        .set_min_delay(Duration::from_millis(50))
        .set_max_delay(Duration::from_millis(200))
        .set_pipeline_buffer_size(PIPELINE)
}

fn refusal(address: &str, error: &RedisError) -> OpenError {
    let (address, reason) = (address.to_owned(), error.to_string());
    let denied = matches!(error.code(), Some("NOAUTH" | "WRONGPASS" | "NOPERM"));
    match error.kind() {
        ErrorKind::RESP3NotSupported => OpenError::TooOld { found: "before 6.0".into() },
        ErrorKind::AuthenticationFailed => OpenError::Denied { address, reason },
        _ if denied => OpenError::Denied { address, reason },
        _ => OpenError::Away { address, reason },
    }
}

/// Whether the server that said `info` of itself can be trusted with jobs.
fn check(address: &str, info: &str) -> Result<(), OpenError> {
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
    match field("maxmemory_policy") {
        Some(policy) if policy != "noeviction" => return Err(OpenError::Evicts { policy }),
        Some(_) => {}
        None => {
            tracing::warn!(%address, "Redis does not say its maxmemory-policy; it must be noeviction");
        }
    }
    if field("aof_enabled").as_deref() != Some("1") {
        tracing::warn!(%address, "Redis has appendonly off: a crash of it may lose jobs that are paid for");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn checked(lines: &[&str]) -> Result<(), OpenError> {
        check("host:6379", &lines.join("\r\n"))
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
    }

    #[test]
    fn urls_of_other_kinds_are_refused_by_name() {
        for (url, kind) in [
            ("redis+sentinel://a:26379/mymaster", "Sentinel"),
            ("rediss+sentinel://:p@a:26379,b:26379/mymaster", "Sentinel"),
            ("redis-cluster://a:6379", "Cluster"),
            ("redis://:p,w@a:6379,b:6379", "Cluster"),
        ] {
            assert!(matches!(parse(url), Err(OpenError::Unsupported(found)) if found == kind), "{url}");
        }
        for bad in ["", "localhost:6379", "http://localhost", "redis://", "redis://host:port"] {
            assert!(matches!(parse(bad), Err(OpenError::Url(_))), "{bad:?}");
        }
        for good in ["redis://127.0.0.1:6379", "rediss://u:p,w@host/2", "unix:///run/redis.sock"] {
            assert!(parse(good).is_ok(), "{good:?}");
        }
    }

    #[test]
    fn connections_find_out_that_nobody_is_there() {
        let info = parse("redis://127.0.0.1:6379").unwrap();
        let settings = info.tcp_settings();
        assert!(settings.nodelay() && settings.keepalive().is_some());
        #[cfg(target_os = "linux")]
        assert_eq!(settings.user_timeout(), Some(UNACKNOWLEDGED));
    }

    #[test]
    fn no_error_shows_the_password() {
        for url in ["redis://u:hunter2@h:99999", "redis+sentinel://u:hunter2@h", "http://u:hunter2@h"] {
            let error = parse(url).unwrap_err();
            assert!(
                !error.to_string().contains("hunter2") && !format!("{error:?}").contains("hunter2"),
                "{error:?}"
            );
        }
    }
}
