//! What a facilitator may say, and what may be made of it.

use super::Settle::*;
use super::*;

/// Refusals that say nothing of what was sent, or nothing that is known.
const REASONS_IN_DOUBT: [&str; 12] = [
    "invalid_exact_evm_nonce_already_used",
    "invalid_exact_evm_transaction_failed",
    "invalid_exact_evm_transaction_simulation_failed",
    "invalid_exact_evm_transfer_event_mismatch",
    "transaction_failed",
    "unexpected_error",
    "unexpected_settle_error",
    "invalid_transaction_state",
    "duplicate_settlement",
    "not insufficient_funds",
    "the moon is in the wrong house",
    "",
];

/// What the TypeScript, Python and Rust facilitators say of a payment they did not try to settle, and the older ones.
const REASONS_BEFORE_SENDING: [&str; 24] = [
    "invalid_exact_evm_signature",
    "invalid_exact_evm_payload_signature",
    "invalid_signature",
    "invalid_exact_evm_recipient_mismatch",
    "invalid_exact_evm_payload_recipient_mismatch",
    "recipient_mismatch",
    "invalid_exact_evm_payload_authorization_value",
    "invalid_exact_evm_payload_authorization_value_mismatch",
    "invalid_payment_amount",
    "invalid_exact_evm_payload_authorization_valid_before",
    "invalid_payment_expired",
    "payment_expired",
    "invalid_exact_evm_payload_authorization_valid_after",
    "invalid_payment_early",
    "invalid_exact_evm_insufficient_balance",
    "insufficient_funds",
    "invalid_exact_evm_token_name_mismatch",
    "invalid_exact_evm_missing_eip712_domain",
    "asset_not_deployed_contract",
    "accepted_requirements_mismatch",
    "invalid_exact_evm_payload_undeployed_smart_wallet",
    "invalid_network",
    "unsupported_scheme",
    "invalid_x402_version",
];

#[tokio::test(start_paused = true)]
async fn a_sale_is_recorded_step_by_step() {
    let stage = Stage::new();
    let said = stage.sell(stage.sale(1, &[PAY])).await;
    assert_eq!((said.reason, said.status, said.body.as_str()), (Reason::Paid, 200, "run 1"));
    assert_eq!(said.receipt, Some(Version::V2));
    assert_eq!(stage.events(1).await, ["verified", "signed", "answered", "settled"]);
    assert_eq!(stage.facilitator.moved(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_payment_that_does_not_verify_buys_nothing_and_may_try_again_if_its_client_was_told_so() {
    use crate::facilitator::Verdict::Invalid;
    let invalid = Ok(Invalid { reason: "insufficient_funds".into(), message: None });
    let table = [
        (invalid, Reason::PaymentRejected, 402),
        (Err(FacilitatorError::NotSent("refused".into())), Reason::FacilitatorAway, 503),
        (Err(FacilitatorError::Unknown("slow".into())), Reason::FacilitatorAway, 503),
    ];
    for (number, (verdict, reason, status)) in (1..).zip(table) {
        let stage = Stage::new();
        stage.facilitator.verdicts.lock().push_back(verdict);
        let said = stage.sell(stage.sale(number, &[PAY])).await;
        assert!(said.is(reason, Charged::No) && said.status == status, "{said:?}");
        assert_eq!((stage.log.runs(), stage.facilitator.asked()), (0, 0));
        assert_eq!(stage.state(number).await, State::Voided);

        let said = stage.sell(stage.sale(number, &[PAY])).await;
        let then = match status {
            // It may have paid anew by now.
            402 => (reason, 1),
            _ => (Reason::Paid, 2),
        };
        assert_eq!((said.reason, stage.job(number).await.attempt), then);
    }
}

#[tokio::test(start_paused = true)]
async fn only_a_first_refusal_that_sent_nothing_is_final() {
    let table: Vec<(Vec<Settle>, Reason, State)> = vec![
        (vec![No("insufficient_funds")], Reason::Uncollected, State::Uncollected),
        (vec![NotSent, NotSent, No("insufficient_funds")], Reason::Uncollected, State::Uncollected),
        (vec![Pending, Pending, Pending, Yes], Reason::Paid, State::Completed),
        (vec![Silent, Yes], Reason::Paid, State::Completed),
        (vec![Lost], Reason::SettlementUnknown, State::Settling),
        (vec![Silent, No("insufficient_funds")], Reason::SettlementUnknown, State::Settling),
        (vec![Pending, No("expired")], Reason::SettlementUnknown, State::Settling),
        (vec![NoWithHash("insufficient_funds")], Reason::SettlementUnknown, State::Settling),
    ];
    let in_doubt =
        REASONS_IN_DOUBT.map(|words| (vec![No(words)], Reason::SettlementUnknown, State::Settling));
    let no = REASONS_BEFORE_SENDING.map(|words| (vec![No(words)], Reason::Uncollected, State::Uncollected));
    for (settles, reason, state) in table.into_iter().chain(in_doubt).chain(no) {
        let stage = Stage::new();
        stage.facilitator.says(&settles);
        let said = stage.sell(stage.sale(1, &[PAY])).await;
        assert_eq!((said.reason, stage.state(1).await), (reason, state), "{settles:?}");
        match reason {
            Reason::SettlementUnknown => assert!(said.is(reason, Charged::Unknown) && said.status == 503),
            Reason::Uncollected => assert!(said.is(reason, Charged::No) && said.status == 402),
            _ => assert_eq!(said.body, "run 1"),
        }
        let requests = stage.facilitator.requests.lock();
        assert!(requests.iter().all(|request| *request == requests[0]), "the request changed");
    }
}

#[tokio::test(start_paused = true)]
async fn work_that_cost_nothing_is_withheld_and_may_be_bought_again() {
    let stage = Stage::new();
    stage.facilitator.says(&[No("insufficient_funds")]);
    let said = stage.sell(stage.sale(1, &[])).await;
    assert!(said.is(Reason::SettlementRefused, Charged::No) && said.status == 402, "{said:?}");
    assert_eq!(stage.state(1).await, State::Voided);
    assert_eq!(stage.job(1).await.answer, None);
}

#[tokio::test(start_paused = true)]
async fn an_unknown_settlement_is_held_never_a_402_and_found_when_it_is_known() {
    let stage = Stage::new();
    *stage.facilitator.for_ever.lock() = Some(Silent);
    let began = tokio::time::Instant::now();
    let said = stage.sell(stage.sale(1, &[PAY])).await;
    assert!(said.is(Reason::SettlementUnknown, Charged::Unknown), "{said:?}");
    let took = began.elapsed();
    assert!(took > Duration::from_secs(20) && took <= Duration::from_secs(31), "{took:?}");

    for _ in 0..3 {
        let said = stage.sell(stage.sale(1, &[PAY])).await;
        assert!(said.is(Reason::SettlementUnknown, Charged::Unknown), "{said:?}");
        stage.recover().await;
    }
    assert_eq!(stage.state(1).await, State::Settling);

    *stage.facilitator.for_ever.lock() = None;
    stage.recover().await;
    let said = stage.sell(stage.sale(1, &[PAY])).await;
    assert_eq!((said.reason, said.body.as_str()), (Reason::Replayed, "run 1"));
    assert_eq!((stage.log.runs(), stage.facilitator.moved()), (1, 1));
}
