//! A server that Sentinels know: they are asked where it is each time a connection is made.

use std::str::FromStr;

use redis::sentinel::{Sentinel, SentinelNodeConnectionInfo};
use redis::{Client, ConnectionInfo, IntoConnectionInfo, ProtocolVersion, RedisError, TlsMode};

use super::connect::{OpenError, tcp};

/// Where a Sentinel listens that is given without a port.
const PORT: u16 = 26379;

/// Whom to ask, and for what.
pub(super) struct Sentinels {
    asked: Vec<ConnectionInfo>,
    service: String,
    /// How to connect to the server itself.
    node: SentinelNodeConnectionInfo,
}

impl Sentinels {
    /// A connection to the server may be made through this, for now. It said itself that it is the primary.
    pub(super) async fn primary(&self) -> Result<Client, RedisError> {
        // Connections to them are not kept: they belong to a runtime, and are seldom needed.
        let mut sentinels = Sentinel::build(self.asked.clone())?;
        sentinels.async_master_for(&self.service, Some(&self.node)).await
    }

    /// What it is called where it is not known which server it is.
    pub(super) fn name(&self) -> String {
        let asked: Vec<String> = self.asked.iter().map(|info| info.addr().to_string()).collect();
        format!("{} (by the Sentinels {})", self.service, asked.join(", "))
    }
}

impl FromStr for Sentinels {
    type Err = OpenError;

    /// `redis+sentinel://user:password@host:port,host:port/service/db?sentinel_username=user&sentinel_password=password`, or
    /// `rediss+sentinel://` for TLS with all of them. User and password are the server's; what the Sentinels want is in the query.
    fn from_str(url: &str) -> Result<Self, OpenError> {
        let unusable = |why: &str| OpenError::Url(why.to_owned());
        let (scheme, rest) = url.split_once("://").unwrap_or_default();
        let scheme = match scheme {
            "redis+sentinel" => "redis",
            "rediss+sentinel" => "rediss",
            _ => return Err(unusable("the scheme is not one for Sentinels")),
        };
        let (rest, query) = rest.split_once('?').unwrap_or((rest, ""));
        let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
        let (credentials, hosts) = authority.rsplit_once('@').unwrap_or(("", authority));
        let (service, db) = path.split_once('/').unwrap_or((path, ""));
        let named = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
        if service.is_empty() || !service.chars().all(named) {
            return Err(unusable(
                "behind the Sentinels comes the name that they know the server by, as in /mymaster",
            ));
        }
        let (mut user, mut password) = ("", "");
        for part in query.split('&').filter(|part| !part.is_empty()) {
            match part.split_once('=') {
                Some(("sentinel_username", value)) => user = value,
                Some(("sentinel_password", value)) => password = value,
                _ => return Err(unusable("after ? come sentinel_username and sentinel_password only")),
            }
        }
        let theirs = if password.is_empty() { String::new() } else { format!("{user}:{password}@") };
        if password.is_empty() && !user.is_empty() {
            return Err(unusable("sentinel_username needs sentinel_password"));
        }
        let asked = hosts.split(',').map(|host| {
            let port = host.rsplit_once(']').map_or(host, |(_, port)| port).contains(':');
            let host = if port { host.to_owned() } else { format!("{host}:{PORT}") };
            info(&format!("{scheme}://{theirs}{host}")).map(|info| info.set_tcp_settings(tcp()))
        });
        let asked = asked.collect::<Result<Vec<_>, _>>()?;
        let ours = if credentials.is_empty() { String::new() } else { format!("{credentials}@") };
        // In place of the server, which only they know.
        let server = info(&format!("{scheme}://{ours}server/{db}"))?;
        let settings = server.redis_settings().clone().set_protocol(ProtocolVersion::RESP3);
        let mut node =
            SentinelNodeConnectionInfo::default().set_redis_connection_info(settings).set_tcp_settings(tcp());
        if scheme == "rediss" {
            node = node.set_tls_mode(TlsMode::Secure);
        }
        Ok(Sentinels { asked, service: service.to_owned(), node })
    }
}

/// What a URL of one server says. Its error does not repeat the URL.
fn info(url: &str) -> Result<ConnectionInfo, OpenError> {
    url.into_connection_info().map_err(|error| OpenError::Url(error.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(url: &str) -> Sentinels {
        url.parse().unwrap()
    }

    /// Address, user and password of each Sentinel.
    fn asked(sentinels: &Sentinels) -> Vec<(String, Option<&str>, Option<&str>)> {
        let each = |info: &'_ ConnectionInfo| info.addr().to_string();
        let of = |info| (each(info), info.redis_settings().username(), info.redis_settings().password());
        sentinels.asked.iter().map(of).collect()
    }

    #[test]
    fn the_servers_credentials_and_the_sentinels_are_told_apart() {
        let read = read(
            "redis+sentinel://u:p%40w@a:1,b,[::1]/my.master-1/3?sentinel_username=s&sentinel_password=t%2Fu",
        );
        let theirs = |address: &str| (address.to_owned(), Some("s"), Some("t/u"));
        assert_eq!(asked(&read), [theirs("a:1"), theirs("b:26379"), theirs("::1:26379")]);
        assert_eq!(read.service, "my.master-1");
        let node = format!("{:?}", read.node);
        assert!(node.contains("db: 3") && !node.contains("tls_mode: Some"), "{node}");
    }

    #[test]
    fn sentinels_are_asked_without_credentials_unless_they_have_some() {
        let read = read("rediss+sentinel://:p@a/m");
        assert_eq!(asked(&read)[0].1.or(asked(&read)[0].2), None);
        assert!(format!("{:?}", read.node).contains("Secure"));
        assert!(read.asked[0].addr().to_string().starts_with('a'));
    }

    #[test]
    fn what_is_not_understood_is_refused_and_shows_no_password() {
        for url in [
            "redis+sentinel://u:hunter2@a:1",
            "redis+sentinel://u:hunter2@a:1/",
            "redis+sentinel://u:hunter2@a:1/m m",
            "redis+sentinel://u:hunter2@a:1/m/db",
            "redis+sentinel://u:hunter2@a:1/m?password=hunter2",
            "redis+sentinel://u:hunter2@a:1/m?sentinel_username=hunter2",
            "redis+sentinel://u:hunter2@a:port/m",
            "redis+sentinel://u:hunter2@/m",
            "valkey+sentinel://u:hunter2@a/m",
        ] {
            let Err(error) = url.parse::<Sentinels>() else { panic!("{url}") };
            assert!(!format!("{error} {error:?}").contains("hunter2"), "{error:?}");
        }
    }
}
