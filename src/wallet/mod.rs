//! The wallet: signs provider payments, within caps, with derived nonces.
use crate::clock::UnixSeconds;
use crate::jobs::{ClaimKey, ProviderPayment};
use crate::money::Amount;
use crate::providers::{Offer, PaymentHeader, PurseError};
use crate::x402::{Challenge, Offered};
/// tmp stub
pub struct Wallet;
/// tmp
pub struct SignedPayment {
    pub record: ProviderPayment,
    pub header: PaymentHeader,
}
impl Wallet {
    pub fn select<'a>(&self, _c: &'a Challenge, _o: &Offer, _cap: Amount) -> Result<&'a Offered, PurseError> {
        unimplemented!()
    }
    pub fn sign_again(
        &self,
        _c: &Challenge,
        _o: &Offered,
        _s: &ProviderPayment,
    ) -> Result<SignedPayment, PurseError> {
        unimplemented!()
    }
    pub fn authorize(
        &self,
        _c: &Challenge,
        _o: &Offered,
        _p: &str,
        _claim: &ClaimKey,
        _step: &str,
        _attempt: u32,
        _vb: UnixSeconds,
    ) -> Result<SignedPayment, PurseError> {
        unimplemented!()
    }
}
