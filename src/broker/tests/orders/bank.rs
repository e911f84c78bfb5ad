//! A chain on which refunds are paid late, twice asked for or not at all, and the facilitator that is to pay them.

use std::collections::HashMap;

use super::*;
use crate::guard::Balance;
use crate::x402::Payment;

/// A transfer of the wallet's, made or to be made.
#[derive(Clone, Copy, Debug)]
pub(super) struct Transfer {
    pub(super) to: Address,
    pub(super) value: Amount,
    /// The time of its block.
    at: u64,
    lapses: u64,
}

pub(super) struct Bank {
    /// Who knows of the clients' payments.
    pub(super) truth: Truth,
    pub(super) wallet: Address,
    /// By nonce: a token takes it once.
    pub(super) transfers: Mutex<HashMap<B256, Transfer>>,
    /// By nonce, as it was sent first.
    sent: Mutex<HashMap<B256, String>>,
    /// A block is final after so many seconds.
    finality: u64,
    /// It does what it says, at once.
    honest: AtomicBool,
    chance: Mutex<TestRng>,
    uneven: Uneven,
}

impl Bank {
    pub(super) fn new(truth: Truth, wallet: Address, seed: u64) -> Bank {
        let mut chance = seeded(seed);
        let finality = [0, 5, 60][chance.random_range(0..3)];
        let uneven = Uneven::default();
        uneven.seed(chance.random());
        Bank {
            truth,
            wallet,
            transfers: Mutex::default(),
            sent: Mutex::default(),
            finality,
            honest: false.into(),
            chance: Mutex::new(chance),
            uneven,
        }
    }

    fn one_of<T: Copy>(&self, of: &[T]) -> T {
        of[self.chance.lock().random_range(0..of.len())]
    }

    fn now(&self) -> u64 {
        self.truth.clock.now()
    }

    pub(super) fn is_honest(&self) {
        self.honest.store(true, Ordering::SeqCst);
    }

    /// Blocks that are not final are undone; what was in them is in later ones, or in none.
    pub(super) fn reorganise(&self) {
        let (now, later) = (self.now(), self.one_of(&[1, 30, 2_000]));
        let mut transfers = self.transfers.lock();
        for transfer in transfers.values_mut().filter(|transfer| transfer.at + self.finality > now) {
            transfer.at = now + later;
        }
        transfers.retain(|_, transfer| transfer.at < transfer.lapses);
    }

    /// It is in a block after so many seconds, unless it has lapsed by then, or is in one already.
    fn mine(&self, nonce: B256, mut transfer: Transfer, after: u64) {
        transfer.at = self.now() + after;
        let mut transfers = self.transfers.lock();
        if transfer.at < transfer.lapses {
            let made = transfers.entry(nonce).or_insert(transfer);
            made.at = made.at.min(transfer.at);
        }
    }

    /// A head that an endpoint may have, which may lag, and the last final one of it.
    fn head(&self) -> (u64, Head) {
        let behind = self.one_of(&[0, 0, 0, 4, 90]);
        let head = self.now() - behind;
        let time = head - self.finality;
        (head, Head { number: time, hash: B256::ZERO, time })
    }
}

#[async_trait]
impl crate::facilitator::Facilitator for Bank {
    async fn verify(&self, _: &PaymentRequest) -> Result<Verdict, FacilitatorError> {
        panic!("a refund is settled, not verified")
    }

    async fn settle(&self, request: &PaymentRequest) -> Result<Settlement, FacilitatorError> {
        self.uneven.a_while().await;
        let payment = Payment::from_json(&request.payment_payload, Version::V2).unwrap();
        let signed = *payment.authorization();
        assert_eq!(signed.from, self.wallet);
        let text = request.payment_payload.get().to_owned();
        let first = self.sent.lock().entry(signed.nonce).or_insert(text.clone()).clone();
        assert_eq!(first, text, "two payments of one nonce");
        let transfer = Transfer { to: signed.to, value: signed.value, at: 0, lapses: signed.valid_before };
        let honest = self.honest.load(Ordering::SeqCst);
        let said = if honest { 0 } else { self.one_of(&[0, 1, 2, 3, 4, 5]) };
        if matches!(said, 0..=2) {
            let after = if honest { 0 } else { self.one_of(&[0, 3, 40, 880]) };
            self.mine(signed.nonce, transfer, after);
        }
        self.uneven.a_while().await;
        match said {
            0 | 3 => Ok(Settlement::Settled(receipt(true, None, "0xfeed"))),
            1 => Ok(Settlement::Pending(receipt(false, Some("settlement_pending"), "0xfeed"))),
            2 => Err(FacilitatorError::Unknown("502".into())),
            4 => Ok(Settlement::Refused(receipt(false, Some("nonce_already_used"), ""))),
            _ => Err(FacilitatorError::NotSent("connection refused".into())),
        }
    }

    async fn supported(&self) -> Result<Vec<Supported>, FacilitatorError> {
        Ok(Vec::new())
    }
}

#[async_trait]
impl Prove for Bank {
    async fn prove(&self, network: Network, sought: &Sought) -> Option<Result<Proof, ChainError>> {
        if sought.from != self.wallet || sought.to == Address::repeat_byte(0xdd) {
            return self.truth.prove(network, sought).await;
        }
        self.uneven.a_while().await;
        if !self.honest.load(Ordering::SeqCst) && self.one_of(&[0, 0, 0, 0, 0, 0, 0, 1]) == 1 {
            return Some(Err(ChainError::Away("as told".into())));
        }
        let (head, as_of) = self.head();
        let made = self.transfers.lock().get(&sought.nonce).copied().filter(|transfer| transfer.at <= head);
        let proof = match made {
            Some(Transfer { to, value, at, .. }) if (to, value) == (sought.to, sought.value) => {
                Proof::Paid { transaction: sought.nonce, block: at, is_final: at <= as_of.time }
            }
            Some(_) => Proof::Unpaid(crate::chain::Unpaid::Elsewhere),
            None if as_of.time >= sought.valid_before => Proof::Unpaid(crate::chain::Unpaid::Lapsed),
            None => Proof::Open { as_of },
        };
        self.uneven.a_while().await;
        Some(Ok(proof))
    }

    async fn last_final(&self, _: Network) -> Option<Result<Head, ChainError>> {
        self.uneven.a_while().await;
        Some(Ok(self.head().1))
    }

    fn height(&self, _: Network) -> Option<u64> {
        None
    }

    fn knows(&self, _: Network) -> bool {
        true
    }
}

#[async_trait]
impl Balance for Bank {
    async fn balance(&self, _: &Asset, _: Address) -> Option<Result<Amount, ChainError>> {
        None
    }

    fn knows(&self, _: Network) -> bool {
        false
    }
}
