//! The payment: which offer is taken, whether the price is acceptable, and the one signature.

use std::fmt;

use anyhow::{Context, bail};
use http::{HeaderName, HeaderValue};
use ring::rand::{SecureRandom, SystemRandom};
use secrecy::SecretString;

use crate::clock::{Clock, UnixSeconds};
use crate::money::Amount;
use crate::wallet::Wallet;
use crate::x402::{Address, Asset, Authorization, B256, Challenge, Offered, PaymentFlow};

/// How far clocks may differ.
const SKEW: UnixSeconds = 600;

/// A payment that can be collected for longer than this is not signed.
const LONGEST: UnixSeconds = 86_400;

/// Dollars, in decimal text that is known to be one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::cli) struct Dollars(String);

/// Reads `0.01` or `$0.01`.
pub(in crate::cli) fn parse_dollars(text: &str) -> Result<Dollars, String> {
    let number = text.strip_prefix('$').unwrap_or(text);
    match Amount::from_decimal(number, 6) {
        Some(_) => Ok(Dollars(number.to_owned())),
        None => Err("write dollars such as 0.25, with six decimal places at most".to_owned()),
    }
}

/// A signed payment.
#[derive(Debug)]
pub(in crate::cli) struct Payment {
    header: (HeaderName, HeaderValue),
    authorization: Authorization,
    asset: Asset,
    flow: PaymentFlow,
}

impl Payment {
    /// Signs for the first offer of `challenge` in a known dollar token that costs no more than `max_price`.
    pub(in crate::cli) fn sign(
        challenge: &Challenge,
        key: SecretString,
        max_price: &Dollars,
        clock: &Clock,
    ) -> anyhow::Result<Payment> {
        let (offered, asset) = choose(&challenge.accepts, max_price)?;
        if offered.max_timeout_seconds > LONGEST {
            bail!(
                "the payment would be collectable for {} seconds; that is too long",
                offered.max_timeout_seconds
            );
        }
        let wallet = Wallet::new(key, &max_price.0, vec![asset.clone()])?;
        let now = clock.now();
        let authorization = Authorization {
            from: wallet.address(),
            to: offered.pay_to,
            value: offered.amount,
            valid_after: now.saturating_sub(SKEW),
            valid_before: now + offered.max_timeout_seconds,
            nonce: nonce()?,
        };
        let signature = wallet.sign(&asset, &authorization)?;
        let header = challenge.payment(offered, &authorization, &signature);
        Ok(Payment { header, authorization, asset, flow: offered.flow })
    }

    /// The request header that carries it.
    pub(super) fn header(&self) -> &(HeaderName, HeaderValue) {
        &self.header
    }

    /// `$0.012`.
    pub(super) fn price(&self) -> String {
        dollars(self.authorization.value, &self.asset)
    }

    /// What was signed.
    pub(in crate::cli) fn authorization(&self) -> &Authorization {
        &self.authorization
    }

    /// When it can no longer be collected.
    pub(super) fn valid_before(&self) -> UnixSeconds {
        self.authorization.valid_before
    }

    /// What identifies it on chain, together with the payer.
    pub(super) fn nonce(&self) -> B256 {
        self.authorization.nonce
    }
}

impl fmt::Display for Payment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Authorization { from, to, .. } = &self.authorization;
        let network = self.asset.network;
        let network = network.v1_name().map_or_else(|| network.to_string(), str::to_owned);
        write!(f, "price {} in {} on {network}: {from} pays {to}", self.price(), self.asset.name)?;
        match self.flow {
            PaymentFlow::Authorization => f.write_str(", charged when the work succeeded"),
            PaymentFlow::Upfront => f.write_str(", charged before the work starts"),
        }
    }
}

fn choose<'a>(offers: &'a [Offered], max_price: &Dollars) -> anyhow::Result<(&'a Offered, Asset)> {
    let mut cheapest: Option<String> = None;
    for offered in offers {
        // What an unknown token is worth, only its seller knows. The domain is ours too, not the seller's word.
        let Some(asset) = Asset::default_for(offered.network).filter(|asset| asset.address == offered.asset)
        else {
            continue;
        };
        if offered.pay_to == Address::ZERO {
            continue;
        }
        let cap = Amount::from_decimal(&max_price.0, asset.decimals)
            .context("--max-price has more decimal places than the token")?;
        if offered.amount <= cap {
            return Ok((offered, asset));
        }
        cheapest.get_or_insert_with(|| dollars(offered.amount, &asset));
    }
    match cheapest {
        Some(price) => bail!("the price is {price}, over --max-price ${}; nothing was signed", max_price.0),
        None => bail!("none of the offered ways to pay is a dollar token known here; nothing was signed"),
    }
}

fn dollars(amount: Amount, asset: &Asset) -> String {
    format!("${}", amount.to_decimal(asset.decimals))
}

fn nonce() -> anyhow::Result<B256> {
    let mut nonce = [0; 32];
    SystemRandom::new().fill(&mut nonce).ok().context("the system gives no random numbers")?;
    Ok(B256::from(nonce))
}
