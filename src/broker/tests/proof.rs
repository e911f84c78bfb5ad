//! What becomes of a job by what the chain proves, and what does not by what it does not.

use super::Settle::*;
use super::*;
use crate::chain::{Head, Since, Unpaid};
use crate::jobs::job::Fate;

const HASH: B256 = B256::repeat_byte(0x5e);

fn paid(is_final: bool) -> Result<Proof, ChainError> {
    Ok(Proof::Paid { transaction: HASH, block: 80, is_final })
}

fn unpaid(why: Unpaid) -> Result<Proof, ChainError> {
    Ok(Proof::Unpaid(why))
}

fn open() -> Result<Proof, ChainError> {
    Ok(Proof::Open { as_of: Head { number: 79, hash: B256::ZERO, time: NOW } })
}

fn away() -> Result<Proof, ChainError> {
    Err(ChainError::Away("as told".into()))
}

fn contradiction() -> Result<Proof, ChainError> {
    Err(ChainError::Contradict(79))
}

/// Every way in which a settlement has an unknown outcome.
const IN_DOUBT: [Settle; 4] = [Lost, Pending, Silent, No("invalid_exact_evm_nonce_already_used")];

#[tokio::test(start_paused = true)]
async fn the_chain_is_asked_while_the_client_waits() {
    for doubt in IN_DOUBT {
        for is_final in [true, false] {
            let stage = Stage::new();
            stage.chain.says(paid(is_final));
            *stage.facilitator.for_ever.lock() = Some(doubt);
            let said = stage.sell(stage.sale(1, &[PAY])).await;
            assert_eq!((said.reason, said.body.as_str()), (Reason::Paid, "run 1"), "{doubt:?}");
            let job = stage.job(1).await;
            assert_eq!((job.state, job.client.height), (State::Completed, Some(77)), "{doubt:?}");
            let receipt = job.receipt.unwrap();
            assert_eq!((receipt.success, receipt.transaction), (true, HASH.to_string()));
            assert_eq!(receipt.network, "eip155:84532");
            let asked = stage.chain.asked.lock()[0];
            assert_eq!(asked.nonce, B256::repeat_byte(1));
            assert_eq!((asked.from, asked.to), (Address::repeat_byte(0xbb), Address::repeat_byte(0xcc)));
            assert_eq!((asked.value, asked.since), (Amount::new(PRICE), Since::Block(77)));
            assert_eq!((asked.asset, asked.valid_before), (usdc().address, NOW + 300));
        }
    }
}

#[tokio::test(start_paused = true)]
async fn proof_that_nobody_paid_ends_the_job_without_a_charge() {
    for doubt in IN_DOUBT {
        for why in [Unpaid::Canceled, Unpaid::Lapsed, Unpaid::Elsewhere, Unpaid::Before] {
            let stage = Stage::new();
            stage.chain.says(unpaid(why));
            *stage.facilitator.for_ever.lock() = Some(doubt);
            let said = stage.sell(stage.sale(1, &[PAY])).await;
            assert!(said.is(Reason::Uncollected, Charged::No), "{doubt:?}: {said:?}");
            assert_eq!(stage.state(1).await, State::Uncollected);
            let said = stage.sell(stage.sale(2, &[])).await;
            // Whoever left us a bill pays first.
            assert!(said.is(Reason::PaymentRejected, Charged::No), "{said:?}");
            assert_eq!(stage.state(2).await, State::Voided);
        }
    }
}

#[tokio::test(start_paused = true)]
async fn what_proves_nothing_leaves_it_unknown() {
    for doubt in IN_DOUBT {
        for nothing in [open(), away(), contradiction()] {
            let stage = Stage::new();
            stage.chain.says(nothing);
            *stage.facilitator.for_ever.lock() = Some(doubt);
            let began = tokio::time::Instant::now();
            let said = stage.sell(stage.sale(1, &[PAY])).await;
            assert!(said.is(Reason::SettlementUnknown, Charged::Unknown) && said.status == 503, "{said:?}");
            // It is held meanwhile: the transfer may be in the next block.
            let took = began.elapsed();
            assert!(took > Duration::from_secs(20) && took <= Duration::from_secs(31), "{took:?}");
            stage.recover().await;
            assert_eq!(stage.state(1).await, State::Settling);
            // Until it is proven, once the facilitator is of no use any more.
            stage.chain.says(paid(true));
            stage.recover().await;
            assert_eq!(stage.state(1).await, State::Completed);
            assert_eq!(stage.sell(stage.sale(1, &[PAY])).await.body, "run 1");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_refused_settle_is_not_repeated_while_the_chain_can_say() {
    let stage = Stage::new();
    stage.chain.says(open());
    *stage.facilitator.for_ever.lock() = Some(No("invalid_exact_evm_nonce_already_used"));
    stage.sell(stage.sale(1, &[PAY])).await;
    assert_eq!(stage.facilitator.asked(), 1);
    assert!(stage.chain.asked.lock().len() > 5);
}

/// The payer, or anybody else, sends the transfer himself between verifying and settling; then the balance is too low.
#[tokio::test(start_paused = true)]
async fn a_plain_no_is_no_match_for_a_payment_on_chain() {
    let stage = Stage::new();
    stage.chain.says(paid(false));
    stage.facilitator.says(&[No("insufficient_funds")]);
    let said = stage.sell(stage.sale(1, &[PAY])).await;
    assert_eq!((said.reason, said.body.as_str()), (Reason::Paid, "run 1"));
    for nothing in [open(), away(), unpaid(Unpaid::Canceled)] {
        let stage = Stage::new();
        stage.chain.says(nothing);
        stage.facilitator.says(&[No("insufficient_funds")]);
        let said = stage.sell(stage.sale(1, &[PAY])).await;
        assert!(said.is(Reason::Uncollected, Charged::No), "{said:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_stuck_settlement_is_asked_of_the_chain_before_the_facilitator() {
    let table = [
        (paid(true), vec![PAY], State::Completed),
        (unpaid(Unpaid::Lapsed), vec![PAY], State::Uncollected),
        (unpaid(Unpaid::Lapsed), vec![], State::Voided),
    ];
    for (proof, steps, state) in table {
        let stage = Stage::new();
        *stage.facilitator.for_ever.lock() = Some(Silent);
        stage.sell(stage.sale(1, &steps)).await;
        assert_eq!(stage.state(1).await, State::Settling);
        let asked = stage.facilitator.asked();
        stage.chain.says(proof);
        stage.recover().await;
        assert_eq!((stage.state(1).await, stage.facilitator.asked()), (state, asked));
    }
}

/// A settlement is repeated about once a minute while it can succeed, and then less and less often.
#[tokio::test(start_paused = true)]
async fn a_settlement_that_nobody_can_tell_of_is_asked_for_less_and_less_often() {
    let stage = Stage::new();
    *stage.facilitator.for_ever.lock() = Some(Silent);
    stage.sell(stage.sale(1, &[PAY])).await;
    let live = stage.facilitator.asked();
    let mut times = Vec::new();
    let recovery = Recovery::new(Arc::clone(&stage.broker), Duration::from_secs(15));
    for minute in 1..=24 * 60 {
        stage.clock.advance(60_001);
        recovery.sweep(&|| Some(())).await;
        if stage.facilitator.asked() > live + times.len() {
            times.push(minute);
        }
    }
    assert!(times.starts_with(&[1, 2, 3, 4, 5, 6]), "{times:?}");
    let pauses: Vec<i32> = times.windows(2).map(|pair| pair[1] - pair[0]).collect();
    assert!(pauses.is_sorted() && pauses.last() == Some(&60), "{pauses:?}");
    assert!(times.len() < 50, "{} times in a day", times.len());
}

#[tokio::test(start_paused = true)]
async fn what_was_settled_upfront_by_proof_is_worked_for_or_owed() {
    let stage = Stage::new();
    stage.chain.says(paid(false));
    *stage.facilitator.for_ever.lock() = Some(No("transaction_failed"));
    let said = stage.sell(stage.upfront(1, &[PAY])).await;
    assert_eq!((said.reason, said.body.as_str()), (Reason::Paid, "run 1"));
    assert_eq!(stage.events(1).await, ["settle_first", "settled", "signed", "answered"]);

    // The process dies before anything is proven; nobody comes for the work.
    for (proof, state) in [(paid(true), State::RefundDue), (unpaid(Unpaid::Lapsed), State::Voided)] {
        let stage = Stage::new();
        stage.chain.says(away());
        *stage.facilitator.for_ever.lock() = Some(Silent);
        let said = stage.sell(stage.upfront(2, &[PAY])).await;
        assert!(said.is(Reason::SettlementUnknown, Charged::Unknown), "{said:?}");
        stage.chain.says(proof);
        // Whoever has paid may still come for it.
        stage.recover().await;
        assert_eq!(stage.state(2).await, State::SettlingUpfront);
        stage.clock.advance(300_000);
        stage.recover().await;
        assert_eq!((stage.state(2).await, stage.log.runs()), (state, 0));
    }

    // He comes for it.
    let stage = Stage::new();
    stage.chain.says(away());
    *stage.facilitator.for_ever.lock() = Some(Lost);
    stage.sell(stage.upfront(3, &[PAY])).await;
    stage.chain.says(paid(true));
    *stage.facilitator.for_ever.lock() = None;
    let said = stage.sell(stage.upfront(3, &[PAY])).await;
    assert_eq!((said.reason, said.body.as_str()), (Reason::Paid, "run 1"));
}

/// A job held with these steps signed.
async fn held(steps: &[Do]) -> Stage {
    let stage = Stage::new();
    stage.chain.says(open());
    let steps = [steps, &[Do::Fail(Reason::ProviderFailed)]].concat();
    let said = stage.sell(stage.sale(1, &steps)).await;
    assert!(said.is(Reason::ProviderLost, Charged::No), "{said:?}");
    assert_eq!(stage.state(1).await, State::Held);
    stage
}

#[tokio::test(start_paused = true)]
async fn a_held_job_ends_by_what_became_of_its_payment() {
    let table = [
        (paid(true), State::ProviderLost),
        // Our nonce, spent on anything, is our money.
        (unpaid(Unpaid::Elsewhere), State::ProviderLost),
        (unpaid(Unpaid::Before), State::ProviderLost),
        (unpaid(Unpaid::Lapsed), State::Voided),
        (unpaid(Unpaid::Canceled), State::Voided),
        (paid(false), State::Held),
        (open(), State::Held),
        (away(), State::Held),
        (contradiction(), State::Held),
    ];
    for (proof, state) in table {
        let stage = held(&[PAY]).await;
        stage.chain.says(proof.clone());
        stage.chain.says_of_clients(unpaid(Unpaid::Lapsed));
        stage.recover().await;
        assert_eq!(stage.state(1).await, state, "{proof:?}");
        let fate = match state {
            State::ProviderLost => Fate::Spent,
            State::Voided => Fate::Unspent,
            _ => Fate::Open,
        };
        let job = stage.job(1).await;
        assert_eq!(job.provider[0].fate, fate);
        let asked = stage.chain.asked.lock().iter().rfind(|it| it.nonce == job.provider[0].nonce).copied();
        let asked = asked.unwrap();
        assert_eq!((asked.nonce, asked.to), (job.provider[0].nonce, job.provider[0].pay_to));
        assert_eq!((asked.value, asked.valid_before), (Amount::new(COST), job.provider[0].valid_before));
        assert_eq!(asked.from, crate::x402::fixtures::payer().address());

        // Its client was told to pay anew, whatever is known by now.
        let said = stage.sell(stage.sale(1, &[])).await;
        assert!(said.is(Reason::ProviderLost, Charged::No), "{said:?}");
        assert_eq!((stage.state(1).await, stage.facilitator.moved()), (state, 0));
    }
}

/// A gateway that was cut off from the store settled, and died before it could say so. The others took its job for one
/// that failed; the client was charged.
#[tokio::test(start_paused = true)]
async fn a_held_job_whose_client_was_charged_is_owed() {
    let table = [
        (paid(true), paid(true), State::RefundDue),
        (paid(true), paid(false), State::RefundDue),
        (unpaid(Unpaid::Lapsed), paid(true), State::RefundDue),
        // It may be in the next block; a loss would be for good.
        (paid(true), open(), State::Held),
        (paid(true), away(), State::Held),
        (unpaid(Unpaid::Lapsed), open(), State::Voided),
    ];
    for (provider, client, state) in table {
        let stage = held(&[PAY]).await;
        stage.chain.says(provider.clone());
        stage.chain.says_of_clients(client.clone());
        stage.recover().await;
        assert_eq!(stage.state(1).await, state, "{provider:?}, {client:?}");
        if state == State::RefundDue {
            let said = stage.sell(stage.sale(1, &[PAY])).await;
            assert!(said.is(Reason::RefundDue, Charged::Yes) && said.receipt.is_some(), "{said:?}");
            stage.recover().await;
            assert_ne!(stage.job(1).await.provider[0].fate, Fate::Open, "{provider:?}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_held_job_of_several_payments_needs_proof_of_each() {
    let stage = held(&[Do::Pay("upload", 1_000), Do::Pay("pin", 2_000)]).await;
    stage.chain.says(unpaid(Unpaid::Lapsed));
    stage.chain.asked.lock().clear();
    stage.recover().await;
    // And of the client's.
    assert_eq!(stage.chain.asked.lock().len(), 3);
    assert_eq!(stage.state(1).await, State::Voided);
}

/// The client is owed its money whatever the work has cost; the books say what it did.
#[tokio::test(start_paused = true)]
async fn what_was_paid_for_work_that_is_refunded_is_proven_too() {
    let table = [
        (paid(true), Fate::Spent),
        (unpaid(Unpaid::Elsewhere), Fate::Spent),
        (unpaid(Unpaid::Lapsed), Fate::Unspent),
        (unpaid(Unpaid::Canceled), Fate::Unspent),
        (paid(false), Fate::Open),
        (open(), Fate::Open),
        (away(), Fate::Open),
    ];
    for (proof, fate) in table {
        let stage = Stage::new();
        stage.chain.says(open());
        let said = stage.sell(stage.upfront(1, &[PAY, Do::Fail(Reason::ProviderFailed)])).await;
        assert!(said.is(Reason::RefundDue, Charged::Yes), "{said:?}");
        stage.chain.says(proof.clone());
        let recovery = Recovery::new(Arc::clone(&stage.broker), Duration::from_secs(15));
        recovery.look_at_open(&|| Some(())).await;
        let job = stage.job(1).await;
        assert_eq!((job.state, job.provider[0].fate), (State::RefundDue, fate), "{proof:?}");
        let asked = stage.chain.asked.lock().len();
        recovery.look_at_open(&|| Some(())).await;
        assert_eq!(stage.chain.asked.lock().len() > asked, fate == Fate::Open, "{proof:?}");
        let again = stage.sell(stage.upfront(1, &[PAY])).await;
        assert!(again.is(Reason::RefundDue, Charged::Yes) && again.receipt.is_some(), "{again:?}");
        assert_eq!((stage.log.runs(), stage.facilitator.moved()), (1, 1));
        let ended = "galaksio_jobs_total{kind=\"run\",outcome=\"refund_due\"} 1\n";
        assert!(stage.broker.metrics.exposition().unwrap().contains(ended), "counted otherwise than once");
    }
}
