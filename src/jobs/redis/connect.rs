//! Connecting, and refusing a server that would lose jobs.

use std::time::Duration;

use redis::io::tcp::TcpSettings;
use redis::io::tcp::socket2::TcpKeepalive;
use redis::{Client, ConnectionInfo, ErrorKind, IntoConnectionInfo, ProtocolVersion, RedisError};

use super::keys::Keys;
use super::server::{Fresh, Server};

/// A command that has no answer by then has an unknown outcome.
pub(super) const RESPONSE_TIMEOUT: Duration = Duration::from_secs(1);

/// The whole of connecting, name lookup and reconnection attempts included.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// An idle connection is tried after this long, so that one whose other end is gone is found out before it is needed.
const KEEPALIVE: Duration = Duration::from_secs(10);

/// What was sent is acknowledged by then, or the connection is dead.
#[cfg(target_os = "linux")]
const UNACKNOWLEDGED: Duration = Duration::from_secs(5);

/// RESP3 is what tells us of a broken connection before the next command does.
pub(super) const OLDEST: (u32, u32) = (6, 0);

/// Why the Redis store cannot be used. None of them shows the URL: it may hold a password.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The URL does not parse, or its scheme is none that is known.
    #[error(
        "the Redis URL is not usable: {0}; write redis://user:password@host:port/db, or rediss:// for TLS, or \
         redis+sentinel://user:password@host:port,host:port/service/db"
    )]
    Url(String),
    /// The URL or the server is for Cluster.
    #[error("Redis {0} is not supported; give the URL of one Redis server, or of its Sentinels")]
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

/// The server at `url`, and a connection to it: it was checked that it will keep what it is given, and that nothing is at
/// `prefix` that this build would overlook.
pub(super) async fn connect(url: &str, prefix: &str) -> Result<(Server, Fresh), OpenError> {
    let server = match url.split_once("://") {
        Some((scheme, _)) if scheme.ends_with("+sentinel") => Server::known_to(url.parse()?),
        _ => Server::at(Client::open(parse(url)?).map_err(|error| OpenError::Url(error.to_string()))?),
    };
    let connecting = async {
        let mut fresh = server.reach(true).await?;
        let old =
            redis::cmd("EXISTS").arg(Keys::new(prefix).old_layout()).query_async(&mut fresh.connection).await;
        match old.map_err(|error| refusal(server.address(), &error))? {
            0_u64 => Ok(fresh),
            _ => Err(OpenError::OldLayout { prefix: prefix.to_owned() }),
        }
    };
    let late = |_| OpenError::Away {
        address: server.address().to_owned(),
        reason: format!("no answer within {CONNECT_TIMEOUT:?}"),
    };
    let fresh =
        tokio::time::timeout(CONNECT_TIMEOUT, connecting).await.unwrap_or_else(|out| Err(late(out)))?;
    Ok((server, fresh))
}

fn parse(url: &str) -> Result<ConnectionInfo, OpenError> {
    let scheme = url.split_once("://").map_or("", |(scheme, _)| scheme);
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

pub(super) fn tcp() -> TcpSettings {
    let keepalive = TcpKeepalive::new().with_time(KEEPALIVE).with_interval(KEEPALIVE / 5);
    let settings = TcpSettings::default().set_nodelay(true).set_keepalive(keepalive);
    #[cfg(target_os = "linux")]
    let settings = settings.set_user_timeout(UNACKNOWLEDGED);
    settings
}

pub(super) fn refusal(address: &str, error: &RedisError) -> OpenError {
    let (address, reason) = (address.to_owned(), error.to_string());
    let denied = matches!(error.code(), Some("NOAUTH" | "WRONGPASS" | "NOPERM"));
    match error.kind() {
        ErrorKind::RESP3NotSupported => OpenError::TooOld { found: "before 6.0".into() },
        ErrorKind::AuthenticationFailed => OpenError::Denied { address, reason },
        _ if denied => OpenError::Denied { address, reason },
        _ => OpenError::Away { address, reason },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_of_other_kinds_are_refused_by_name() {
        for (url, kind) in [("redis-cluster://a:6379", "Cluster"), ("redis://:p,w@a:6379,b:6379", "Cluster")]
        {
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
