//! Networks by their CAIP-2 and legacy names, and the token on each that payments are made in.

use std::fmt;
use std::str::FromStr;

use super::Address;
use alloy::primitives::address;

/// An EVM chain, known by its EIP-155 id. Written `eip155:8453` (CAIP-2).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Network(pub u64);

/// Not a network of ours: unknown short name, or not `eip155:<chain id>`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is neither `eip155:<chain id>` nor a known network name such as `base`")]
pub struct UnknownNetwork(pub String);

/// Name, chain id, and whether the legacy 1.2 client knows the name: one unknown name in a v1
/// challenge makes that client throw the whole challenge away.
const V1_NAMES: &[(&str, u64, bool)] = &[
    ("ethereum", 1, false),
    ("sepolia", 11_155_111, false),
    ("base", 8453, true),
    ("base-sepolia", 84_532, true),
    ("avalanche", 43_114, true),
    ("avalanche-fuji", 43_113, true),
    ("polygon", 137, true),
    ("polygon-amoy", 80_002, true),
    ("iotex", 4689, true),
    ("sei", 1329, true),
    ("sei-testnet", 1328, true),
    ("peaq", 3338, true),
    ("story", 1514, true),
    ("educhain", 41_923, true),
    ("abstract", 2741, true),
    ("abstract-testnet", 11_124, true),
    ("skale-base-sepolia", 324_705_682, true),
    ("megaeth", 4326, false),
    ("monad", 143, false),
    ("stable", 988, false),
    ("stable-testnet", 2201, false),
    ("celo", 42_220, false),
    ("flare", 14, false),
];

impl Network {
    /// The x402 v1 short name, if it has one.
    pub fn v1_name(self) -> Option<&'static str> {
        V1_NAMES.iter().find(|(_, id, _)| *id == self.0).map(|(name, ..)| *name)
    }

    /// The v1 short name, if the legacy client accepts it.
    pub fn legacy_name(self) -> Option<&'static str> {
        V1_NAMES.iter().find(|(_, id, legacy)| *id == self.0 && *legacy).map(|(name, ..)| *name)
    }

    /// The network of a v1 short name.
    pub fn from_v1_name(name: &str) -> Option<Self> {
        V1_NAMES.iter().find(|(known, ..)| *known == name).map(|(_, id, _)| Network(*id))
    }

    /// The network of a CAIP-2 name; `None` for another namespace than `eip155`.
    pub fn from_caip2(name: &str) -> Option<Self> {
        let id = name.strip_prefix("eip155:")?;
        let plain = !id.is_empty() && !id.starts_with('0') && id.bytes().all(|b| b.is_ascii_digit());
        if plain { id.parse().ok().map(Network) } else { None }
    }
}

impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "eip155:{}", self.0)
    }
}

/// Accepts both spellings, as `proxy.toml` does.
impl FromStr for Network {
    type Err = UnknownNetwork;

    fn from_str(name: &str) -> Result<Self, UnknownNetwork> {
        Network::from_caip2(name)
            .or_else(|| Network::from_v1_name(name))
            .ok_or_else(|| UnknownNetwork(name.to_owned()))
    }
}

impl serde::Serialize for Network {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> serde::Deserialize<'de> for Network {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let name = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
        name.parse().map_err(serde::de::Error::custom)
    }
}

/// A token on a network, with what is needed to name, count and sign for it.
#[derive(Clone, Debug, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
pub struct Asset {
    /// The chain the token lives on.
    pub network: Network,
    /// The token contract.
    pub address: Address,
    /// `name` of the token's EIP-712 domain: "USD Coin" on Base, "USDC" on Base Sepolia.
    pub name: String,
    /// `version` of the token's EIP-712 domain.
    pub version: String,
    /// Decimal places of one US dollar's worth.
    pub decimals: u8,
}

/// Chain id, USDC-like contract, EIP-712 name and version; all have six decimals.
const USDC: &[(u64, Address, &str, &str)] = &[
    (8453, address!("833589fCD6eDb6E08f4c7C32D4f71b54bdA02913"), "USD Coin", "2"),
    (84_532, address!("036CbD53842c5426634e7929541eC2318f3dCF7e"), "USDC", "2"),
    (1, address!("A0b86991c6218b36c1d19D4a2e9Eb0cE3606eB48"), "USD Coin", "2"),
    (137, address!("3c499c542cEF5E3811e1192ce70d8cC03d5c3359"), "USD Coin", "2"),
    (80_002, address!("41E94Eb019C0762f9Bfcf9Fb1E58725BfB0e7582"), "USDC", "2"),
    (42_161, address!("af88d065e77c8cC2239327C5EDb3A432268e5831"), "USD Coin", "2"),
    (421_614, address!("75faf114eafb1BDbe2F0316DF893fd58CE46AA4d"), "USD Coin", "2"),
    (43_114, address!("B97EF9Ef8734C71904D8002F8b6Bc66Dd9c48a6E"), "USD Coin", "2"),
    (43_113, address!("5425890298aed601595a70AB815c96711a31Bc65"), "USD Coin", "2"),
    (143, address!("754704Bc059F8C67012fEd69BC8A327a5aafb603"), "USDC", "2"),
    (1329, address!("e15fC38F6D8c56aF07bbCBe3BAf5708A2Bf42392"), "USDC", "2"),
    (1328, address!("4fCF1784B31630811181f670Aea7A7bEF803eaED"), "USDC", "2"),
    (42_220, address!("cebA9300f2b948710d2653dD7B07f33A8B32118C"), "USDC", "2"),
    (988, address!("779Ded0c9e1022225f8E0630b35a9b54bE713736"), "USDT0", "1"),
    (2201, address!("78Cf24370174180738C5B8E352B6D14c83a6c9A9"), "USDT0", "1"),
    (14, address!("e7cd86e13AC4309349F30B3435a9d337750fC82D"), "USD₮0", "1"),
    (4689, address!("cdf79194c6c285077a58da47641d4dbe51f63542"), "Bridged USDC", "2"),
    (3338, address!("bbA60da06c2c5424f03f7434542280FCAd453d10"), "USDC", "2"),
    (2741, address!("84a71ccd554cc1b02749b35d22f684cc8ec987e1"), "Bridged USDC", "2"),
    (11_124, address!("e4C7fBB0a626ed208021ccabA6Be1566905E2dFc"), "Bridged USDC", "2"),
    (1514, address!("F1815bd50389c46847f0Bda824eC8da914045D14"), "Bridged USDC", "2"),
];

impl Asset {
    /// The dollar token x402 clients pay with by default on `network`, if we know one.
    pub fn default_for(network: Network) -> Option<Asset> {
        USDC.iter().find(|(id, ..)| *id == network.0).map(|(_, address, name, version)| Asset {
            network,
            address: *address,
            name: (*name).to_owned(),
            version: (*version).to_owned(),
            decimals: 6,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_ids_agree() {
        assert_eq!("base-sepolia".parse(), Ok(Network(84_532)));
        assert_eq!("eip155:84532".parse(), Ok(Network(84_532)));
        assert_eq!(Network(84_532).to_string(), "eip155:84532");
        for bad in ["", "eip155:", "eip155:01", "eip155:+1", "solana:x", "Base", "eip155:1:2"] {
            assert!(bad.parse::<Network>().is_err(), "{bad:?}");
        }
    }

    #[test]
    fn legacy_client_is_never_shown_a_name_it_throws_on() {
        assert_eq!(Network(84_532).legacy_name(), Some("base-sepolia"));
        assert_eq!(Network(1).v1_name(), Some("ethereum"));
        assert_eq!(Network(1).legacy_name(), None);
    }
}
