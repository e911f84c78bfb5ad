//! A chain that knows what became of every payment, as the facilitator and the providers saw it.

use super::*;

/// A chain that knows what the facilitator moved, and takes it that a provider takes what it is given.
pub(super) struct Truth {
    pub(super) facilitator: Arc<Fake>,
    pub(super) log: Arc<Log>,
    pub(super) clock: Clock,
    pub(super) knows: bool,
}

impl Fake {
    pub(super) fn has_moved(&self, number: u8) -> bool {
        // As it is presented here, or as clients write it.
        let (short, long) = (format!("{{\"nonce\":{number}}}"), format!("{:#x}", B256::repeat_byte(number)));
        self.chain.lock().iter().any(|payment| *payment == short || payment.contains(&long))
    }
}

impl Log {
    /// The payments that were given to providers, each once.
    pub(super) fn given(&self) -> Vec<String> {
        let purse = self.purse.lock();
        let mut given: Vec<String> = purse
            .iter()
            .filter_map(|said| said.as_ref().ok())
            .map(|header| {
                let header = base64_simd::STANDARD.decode_to_vec(header).unwrap();
                String::from_utf8(header).unwrap().to_ascii_lowercase()
            })
            .collect();
        given.sort();
        given.dedup();
        given
    }
}

#[async_trait]
impl Prove for Truth {
    async fn prove(&self, _: Network, sought: &Sought) -> Option<Result<Proof, ChainError>> {
        if !self.knows {
            return None;
        }
        self.facilitator.uneven.a_while().await;
        let made = match sought.to == Address::repeat_byte(0xcc) {
            true => self.facilitator.has_moved(sought.nonce[0]),
            false => self.log.given().iter().any(|given| given.contains(&format!("{:#x}", sought.nonce))),
        };
        let as_of = Head { number: 80, hash: B256::ZERO, time: self.clock.now() };
        let proof = match made {
            true => Proof::Paid { transaction: sought.nonce, block: 79, is_final: true },
            false if self.clock.now() > sought.valid_before => Proof::Unpaid(crate::chain::Unpaid::Lapsed),
            false => Proof::Open { as_of },
        };
        self.facilitator.uneven.a_while().await;
        Some(Ok(proof))
    }

    async fn last_final(&self, _: Network) -> Option<Result<Head, ChainError>> {
        None
    }

    fn height(&self, _: Network) -> Option<u64> {
        self.knows.then_some(77)
    }

    fn knows(&self, _: Network) -> bool {
        self.knows
    }
}
