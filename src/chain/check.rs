//! Whether a chain is what the configuration says: the right one, with the token that payments are signed for. A payment
//! signed for another name, version or chain can never settle, so this is said before anybody is asked for one.

use futures_util::future::join_all;

use super::rpc;
use super::{Chain, ChainError};
use crate::x402::abi::{self, TokenRead};
use crate::x402::{Asset, Network};

/// What does not fit, and what to do about it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Misfit {
    /// An endpoint of another chain.
    #[error(
        "the endpoint at {endpoint} is of chain {found}, not of {network}\n    fix: correct `rpc` or `network` in [[chains]]"
    )]
    WrongChain {
        /// Its host.
        endpoint: String,
        /// As configured.
        network: Network,
        /// What it says.
        found: u64,
    },
    /// Nobody is at home at the token's address.
    #[error(
        "there is no contract at {asset} on {network}\n    fix: correct `asset` in [[accepts]], or `network`"
    )]
    NoCode {
        /// The address.
        asset: String,
        /// As configured.
        network: Network,
    },
    /// Payments would be signed for another token than this one.
    #[error(
        "the token {asset} on {network} {found}, and payments would be signed for name {name:?}, version {version:?}\n    fix: correct `name` and `version` in [[accepts]]"
    )]
    Domain {
        /// The address.
        asset: String,
        /// As configured.
        network: Network,
        /// As configured.
        name: String,
        /// As configured.
        version: String,
        /// What the token says of itself.
        found: String,
    },
}

impl Chain {
    /// Everything that does not fit `assets` of this chain, as far as its endpoints say; an error if one of the questions
    /// was answered by none.
    pub async fn check(&self, assets: &[&Asset]) -> Result<Vec<Misfit>, ChainError> {
        let mut found = Vec::new();
        let ids = join_all(self.endpoints.iter().map(|endpoint| rpc::chain_id(&endpoint.client))).await;
        for (endpoint, id) in self.endpoints.iter().zip(&ids) {
            if let Ok(id) = id
                && *id != self.network.0
            {
                let endpoint = endpoint.name.clone();
                found.push(Misfit::WrongChain { endpoint, network: self.network, found: *id });
            }
        }
        // Of the token, only those of this chain can tell.
        let mut right = self.endpoints.iter().zip(ids).filter_map(|(endpoint, id)| match id {
            Ok(id) if id == self.network.0 => Some(Ok(endpoint)),
            Ok(_) => None,
            Err(why) => Some(Err(why.of(&endpoint.name))),
        });
        let endpoint = match right.next() {
            None => return Ok(found),
            Some(Ok(endpoint)) => endpoint,
            Some(Err(why)) => right.find_map(Result::ok).ok_or(why)?,
        };
        for asset in assets.iter().filter(|asset| asset.network == self.network) {
            let misfit = self.misfit(endpoint, asset).await.map_err(|why| why.of(&endpoint.name))?;
            found.extend(misfit);
        }
        Ok(found)
    }

    async fn misfit(&self, endpoint: &super::Endpoint, asset: &Asset) -> Result<Option<Misfit>, ChainError> {
        let (network, address) = (self.network, asset.address.to_checksum(None));
        if rpc::code(&endpoint.client, asset.address).await?.is_empty() {
            return Ok(Some(Misfit::NoCode { asset: address, network }));
        }
        let ask =
            async |read: TokenRead| rpc::read(&endpoint.client, asset.address, read.encode(), "latest").await;
        // A token need not have any of these functions; what it refuses to say is not held against it.
        let text = async |read: TokenRead| match ask(read).await {
            Ok(output) => Ok(abi::decode_string(&output)),
            Err(ChainError::Refused(_)) => Ok(None),
            Err(why) => Err(why),
        };
        let separator = match ask(TokenRead::DomainSeparator).await {
            Ok(output) => abi::decode_separator(&output),
            Err(ChainError::Refused(_)) => None,
            Err(why) => return Err(why),
        };
        // Where there is one, it is what signatures are checked against, whatever name the token goes by.
        if separator == Some(abi::domain_separator(asset)) {
            return Ok(None);
        }
        let (name, version) = (text(TokenRead::Name).await?, text(TokenRead::Version).await?);
        let differs =
            |found: &Option<String>, configured: &str| found.as_deref().is_some_and(|f| f != configured);
        let found = if differs(&name, &asset.name) || differs(&version, &asset.version) {
            let said = |text: Option<String>| text.map_or("nothing".to_owned(), |text| format!("{text:?}"));
            format!("says that its name is {} and its version {}", said(name), said(version))
        } else if separator.is_some() {
            "has a domain separator that fits neither".to_owned()
        } else {
            return Ok(None);
        };
        let (name, version) = (asset.name.clone(), asset.version.clone());
        Ok(Some(Misfit::Domain { asset: address, network, name, version, found }))
    }
}
