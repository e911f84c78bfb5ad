//! Work in several parts: what was done is paid for, the rest is owed, and of each payment it is known what became of it.

use super::Settle::*;
use super::*;
use crate::chain::{Head, Unpaid};
use crate::jobs::job::Fate;

const TWO: [Do; 2] = [Do::Pay("pin/1", 3_000), Do::Pay("pin/2", 3_000)];

pub(super) fn paid() -> Result<Proof, ChainError> {
    Ok(Proof::Paid { transaction: B256::repeat_byte(0x5e), block: 80, is_final: true })
}

fn lapsed() -> Result<Proof, ChainError> {
    Ok(Proof::Unpaid(Unpaid::Lapsed))
}

fn open() -> Result<Proof, ChainError> {
    Ok(Proof::Open { as_of: Head { number: 79, hash: B256::ZERO, time: NOW } })
}

/// The second is not done.
fn in_part() -> Vec<Do> {
    [&TWO[..], &[Do::InPart("pin/2")]].concat()
}

impl Stage {
    /// What the chain says of the payments to providers, in order.
    async fn proves(&self, says: [Result<Proof, ChainError>; 2]) {
        let job = self.job(1).await;
        for (payment, says) in job.provider.iter().zip(says) {
            self.chain.says_of.lock().insert(payment.nonce, says);
        }
    }

    async fn fates(&self) -> Vec<Fate> {
        self.job(1).await.provider.iter().map(|payment| payment.fate).collect()
    }
}

#[tokio::test(start_paused = true)]
async fn a_part_is_settled_and_the_rest_is_owed() {
    for upfront in [false, true] {
        for (proof, fate) in [(lapsed(), Fate::Unspent), (paid(), Fate::Spent), (open(), Fate::Open)] {
            let stage = Stage::new();
            stage.chain.says(open());
            let sale = || if upfront { stage.upfront(1, &in_part()) } else { stage.sale(1, &in_part()) };
            let said = stage.sell(sale()).await;
            assert_eq!((said.reason, said.body.as_str()), (Reason::Paid, "run 1"));
            assert!(said.receipt.is_some());
            let job = stage.job(1).await;
            assert_eq!((job.state, job.owed(), job.outer()), (State::RefundDue, OWED, "completed"));
            assert_eq!(stage.fates().await, [Fate::Spent, Fate::Open], "nobody vouches for the second");
            stage.proves([paid(), proof]).await;
            stage.recover().await;
            assert_eq!(stage.fates().await, [Fate::Spent, fate]);
            let again = stage.sell(sale()).await;
            assert_eq!((again.reason, again.body.as_str()), (Reason::Replayed, "run 1"));
            assert_eq!((stage.state(1).await, stage.log.runs()), (State::RefundDue, 1));
            assert_eq!(stage.facilitator.moved(), 1);
            let ended = "galaksio_jobs_total{kind=\"run\",outcome=\"refund_due\"} 1\n";
            assert!(
                stage.broker.metrics.exposition().unwrap().contains(ended),
                "counted otherwise than once"
            );
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_settlement_in_doubt_leads_there_too() {
    let stage = Stage::new();
    stage.chain.says(open());
    *stage.facilitator.for_ever.lock() = Some(Lost);
    let said = stage.sell(stage.sale(1, &in_part())).await;
    assert!(said.is(Reason::SettlementUnknown, Charged::Unknown), "{said:?}");
    stage.chain.says_of_clients(paid());
    stage.recover().await;
    assert_eq!((stage.state(1).await, stage.job(1).await.owed()), (State::RefundDue, OWED));
    assert_eq!(stage.sell(stage.sale(1, &in_part())).await.body, "run 1");
}

#[tokio::test(start_paused = true)]
async fn who_does_not_pay_gets_none_of_it() {
    for (proof, fate) in [(lapsed(), Fate::Unspent), (paid(), Fate::Spent)] {
        let stage = Stage::new();
        stage.chain.says(open());
        stage.facilitator.says(&[No("insufficient_funds")]);
        let said = stage.sell(stage.sale(1, &in_part())).await;
        assert!(said.is(Reason::Uncollected, Charged::No), "{said:?}");
        assert_eq!(stage.state(1).await, State::Uncollected);
        stage.proves([paid(), proof]).await;
        stage.recover().await;
        assert_eq!(
            (stage.state(1).await, stage.fates().await),
            (State::Uncollected, vec![Fate::Spent, fate])
        );
        let ended = "galaksio_jobs_total{kind=\"run\",outcome=\"uncollected\"} 1\n";
        assert!(stage.broker.metrics.exposition().unwrap().contains(ended), "counted otherwise than once");
    }
}

/// A crash after the first was done and while the second was bought: nothing is charged, and each payment is looked for.
#[tokio::test(start_paused = true)]
async fn of_several_payments_each_is_proven_by_itself() {
    let table = [
        ([paid(), lapsed()], State::ProviderLost, [Fate::Spent, Fate::Unspent]),
        ([lapsed(), paid()], State::ProviderLost, [Fate::Unspent, Fate::Spent]),
        ([paid(), paid()], State::ProviderLost, [Fate::Spent, Fate::Spent]),
        ([lapsed(), lapsed()], State::Voided, [Fate::Unspent, Fate::Unspent]),
        // It may be taken yet.
        ([paid(), open()], State::Held, [Fate::Open, Fate::Open]),
        ([open(), lapsed()], State::Held, [Fate::Open, Fate::Open]),
    ];
    for (says, state, fates) in table {
        let stage = Stage::new();
        stage.chain.says(open());
        let steps = [&TWO[..], &[Do::Fail(Reason::ProviderFailed)]].concat();
        let said = stage.sell(stage.sale(1, &steps)).await;
        assert!(said.is(Reason::ProviderLost, Charged::No), "{said:?}");
        stage.chain.says_of_clients(lapsed());
        stage.proves(says).await;
        stage.recover().await;
        assert_eq!((stage.state(1).await, stage.fates().await), (state, fates.to_vec()));
    }
}
