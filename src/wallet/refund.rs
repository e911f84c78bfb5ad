//! Giving a client its money back: which payment that is, and its signature. No I/O, as in `spend`: whoever asks writes
//! the record to the journal before the signature leaves the process.
//!
//! The cap of a provider's payment does not hold here: what bounds a refund is what the client paid. Neither are the pinned
//! payees asked: nobody names an address here. Amount, token and payee are those of the client's own payment, and whoever
//! asks for the signature has made sure that it was made.

use super::{Wallet, WalletError};
use crate::clock::UnixSeconds;
use crate::jobs::job::{Fate, Job, Refund};
use crate::x402::Authorization;

/// The step that nonces of refunds are derived from. No adapter may have a step of this name.
pub const REFUND_STEP: &str = "refund";

impl Wallet {
    /// The refund that is due next, valid until `lapses`; `None` if none is due, or another may still be paid.
    pub fn next_refund(&self, job: &Job, lapses: UnixSeconds, height: u64) -> Option<Refund> {
        let attempt = job.next_refund()?;
        Some(Refund {
            attempt,
            nonce: self.nonce(&job.claim, REFUND_STEP, attempt),
            from: self.address(),
            valid_before: lapses,
            height,
            fate: Fate::Open,
            transaction: None,
        })
    }

    /// The signature of a refund that is in the job's journal: the same each time.
    pub fn sign_refund(&self, job: &Job, refund: &Refund) -> Result<(Authorization, [u8; 65]), WalletError> {
        let allowed = self.allowed(&job.client.requirement.asset)?;
        let ours = refund.from == self.address()
            && refund.nonce == self.nonce(&job.claim, REFUND_STEP, refund.attempt)
            && job.refunds.contains(refund);
        if !ours {
            return Err(WalletError::NotOurs);
        }
        let authorization = Authorization {
            from: refund.from,
            to: job.requester,
            value: job.owed(),
            valid_after: 0,
            valid_before: refund.valid_before,
            nonce: refund.nonce,
        };
        Ok((authorization, self.signature(&allowed.domain, &authorization)))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::jobs::{Event, sample};
    use crate::money::Amount;
    use crate::x402::fixtures::{KEY, NOW};
    use crate::x402::{Address, B256, Domain};

    fn wallet() -> Wallet {
        Wallet::new(KEY.into(), "0.001", vec![sample::asset()]).unwrap()
    }

    /// A job whose client is owed its money.
    fn owed() -> Job {
        let failed = Event::WorkFailed { failure: sample::failure() };
        let events = [Event::SettleFirst, Event::Settled { receipt: sample::receipt() }, failed];
        events.iter().fold(sample::job(1), |job, event| job.apply(event, job.updated).unwrap())
    }

    fn signed(job: &Job) -> Job {
        let refund = wallet().next_refund(job, NOW + 900, 7).unwrap();
        job.apply(&Event::RefundSigned { refund }, job.updated).unwrap()
    }

    #[test]
    fn a_refund_is_what_the_client_paid_to_whoever_paid_it() {
        let job = signed(&owed());
        let (authorization, signature) = wallet().sign_refund(&job, &job.refunds[0]).unwrap();
        // More than one provider payment may be, and to somebody who is pinned nowhere.
        assert_eq!((authorization.to, authorization.value), (job.requester, Amount::new(12_000)));
        assert_eq!((authorization.from, authorization.valid_before), (wallet().address(), NOW + 900));
        let domain = Domain::new(&sample::asset());
        assert_eq!(domain.recover(&authorization, &signature), Ok(wallet().address()));
        assert_eq!(wallet().sign_refund(&job, &job.refunds[0]), Ok((authorization, signature)));
    }

    #[test]
    fn one_is_due_at_a_time_and_each_has_a_nonce_of_its_own() {
        let next = |job: &Job| wallet().next_refund(job, NOW, 7);
        assert_eq!(next(&sample::job(1)), None, "nothing is owed");
        let open = signed(&owed());
        assert_eq!(next(&open), None);
        let lapsed = open.apply(&Event::RefundLapsed, open.updated).unwrap();
        let second = next(&lapsed).unwrap();
        assert_eq!(second.attempt, 2);
        assert_ne!(second.nonce, open.refunds[0].nonce);
        let paid = open.apply(&Event::Refunded { transaction: B256::ZERO }, open.updated).unwrap();
        assert_eq!(next(&paid), None);
    }

    /// These bytes are a promise: an upgrade that derives others can give money back twice.
    #[test]
    fn nonces_of_refunds_never_change() {
        let nonce = wallet().next_refund(&owed(), NOW, 7).unwrap().nonce;
        assert_eq!(
            format!("{nonce:#x}"),
            "0x3d9cc82332ee38da85633b7bddcd50b148c38355b4ff89ad2048d5eb51199e21"
        );
    }

    #[test]
    fn what_is_not_in_the_journal_is_not_signed() {
        let (owed, job) = (owed(), signed(&owed()));
        let refund = &job.refunds[0];
        assert_eq!(wallet().sign_refund(&owed, refund), Err(WalletError::NotOurs));
        let others = Job { refunds: vec![Refund { nonce: B256::ZERO, ..refund.clone() }], ..job.clone() };
        assert_eq!(wallet().sign_refund(&others, &others.refunds[0]), Err(WalletError::NotOurs));
        let old_key = Refund { from: Address::ZERO, ..refund.clone() };
        let others = Job { refunds: vec![old_key.clone()], ..job.clone() };
        assert_eq!(wallet().sign_refund(&others, &old_key), Err(WalletError::NotOurs));
        let mut foreign = job.clone();
        Arc::make_mut(&mut foreign.client).requirement.asset.version = "3".into();
        assert!(matches!(wallet().sign_refund(&foreign, refund), Err(WalletError::Asset(..))));
    }
}
