//! The `proxy.toml` of a gateway that crashes: every way of selling, all services of one sandbox.

use galaksio::sandbox::Urls;

/// Who is paid by clients.
pub(crate) const PAY_TO: &str = "0x066e4FBb1Cb2fd7dE4fb1432a7B1C1169B4c2C8F";

/// What differs between the suites.
pub(crate) struct Settings<'a> {
    /// The lines of `[store]`.
    pub(crate) store: String,
    /// Whether the gateway may ask the chain.
    pub(crate) proving: bool,
    /// The lines of `[paid]`.
    pub(crate) paid: &'a str,
    /// Tables that only one of them has.
    pub(crate) more: &'a str,
}

impl Settings<'_> {
    /// The file, for the services at `urls`.
    pub(crate) fn proxy_toml(&self, urls: &Urls) -> String {
        let chains = match self.proving {
            true => format!("[[chains]]\nnetwork = \"base-sepolia\"\nrpc = [{:?}]\n", urls.rpc),
            false => String::new(),
        };
        // A public URL of its own: a gateway that is started again has another port, and is still the same place.
        format!(
            r#"
[edge]
listen = ["127.0.0.1:0"]
public_url = "http://gateway.test"
threads = 1
drain_timeout = "20s"

[app]
url = "{app}"

[[routes]]
path = "/store"
methods = ["POST"]
work = "store"

[[routes]]
path = "/run"
methods = ["POST"]
work = "run"

[[routes]]
path = "/prepaid/run"
methods = ["POST"]
work = "run"
settle = "upfront"

[[routes]]
path = "/premium/*"
price = "$0.001"

[[routes]]
path = "/large"
price = "$0.001"

[[routes]]
path = "/hello"
price = "$0.002"
settle = "upfront"

[[routes]]
path = "/echo"
methods = ["POST"]
price = "$0.003"
settle = "after"

[[accepts]]
network = "base-sepolia"
pay_to = "{PAY_TO}"

[facilitator]
url = "{facilitator}"
unknown_hold = "500ms"

[providers.xcache]
url = "{xcache}"

[providers.openx402]
url = "{openx402}"

[providers.merit]
url = "{merit}"

[wallet]
key_env = "GALAKSIO_WALLET_KEY"

[store]
{store}

{chains}
[paid]
{paid}

[admin]
listen = "127.0.0.1:0"

[log]
filter = "warn,galaksio=info"
json = true

{more}
"#,
            app = urls.app,
            facilitator = urls.facilitator,
            xcache = urls.xcache,
            openx402 = urls.openx402,
            merit = urls.merit,
            store = self.store,
            paid = self.paid,
            more = self.more,
        )
    }
}
