use proptest::prelude::*;
use serde_json::value::RawValue;

use super::*;
use crate::ids::JobId;
use crate::jobs::job::{Failure, Fate, Fingerprint, JobKind, ProviderPayment, Refund};
use crate::jobs::sample;
use crate::jobs::{ClaimKey, State};
use crate::money::Amount;
use crate::x402::{Address, B256, PaymentFlow, Version};

fn raw_json() -> impl Strategy<Value = Box<RawValue>> {
    // White space, escapes and numbers too large for a float must come back as they were sent.
    prop_oneof![
        Just(r#"{ "a" :	[1e400, 0.10, "\u00e9\/"] }"#.to_owned()),
        any::<String>().prop_map(|text| serde_json::to_string(&text).unwrap()),
    ]
    .prop_map(|text| RawValue::from_string(text).unwrap())
}

fn payment() -> impl Strategy<Value = ProviderPayment> {
    let fate = prop_oneof![Just(Fate::Open), Just(Fate::Spent), Just(Fate::Unspent)];
    (any::<String>(), any::<u32>(), any::<u128>(), any::<[u8; 32]>(), any::<u64>(), fate).prop_map(
        |(step, attempt, amount, nonce, valid_before, fate)| ProviderPayment {
            step,
            amount: Amount::new(amount),
            nonce: B256::from(nonce),
            valid_before,
            fate,
            ..sample::payment("", attempt, 0)
        },
    )
}

fn answer() -> impl Strategy<Value = Option<Answer>> {
    let body = prop_oneof![Just(Kept::Not), any::<Vec<u8>>().prop_map(Kept::Whole)];
    let headers = prop::collection::vec((any::<String>(), any::<String>()), 0..3);
    prop::option::of((any::<u16>(), headers, body).prop_map(|(status, headers, body)| Answer {
        status,
        headers,
        body,
    }))
}

prop_compose! {
    fn client()(
        v1 in any::<bool>(),
        upfront in any::<bool>(),
        amount in any::<u128>(),
        valid_before in any::<u64>(),
        payload in raw_json(),
        requirements in raw_json(),
    ) -> ClientLeg {
        let mut client = ClientLeg::clone(&sample::job(0).client);
        client.version = if v1 { Version::V1 } else { Version::V2 };
        client.requirement.flow = if upfront { PaymentFlow::Upfront } else { PaymentFlow::Authorization };
        client.requirement.amount = Amount::new(amount);
        client.valid_before = valid_before;
        client.payload = payload.into();
        client.requirements = requirements.into();
        client
    }
}

prop_compose! {
    fn any_job()(
        client in client(),
        ids in any::<([u8; 16], [u8; 32], [u8; 20], [u8; 32])>(),
        numbers in any::<(u64, u64, u64, u32)>(),
        kind in prop_oneof![Just(JobKind::Store), Just(JobKind::Run), Just(JobKind::App)],
        state in prop::sample::select(State::ALL.to_vec()),
        provider in prop::collection::vec(payment(), 0..3),
        answer in answer(),
        receipt in any::<bool>(),
        message in prop::option::of(any::<String>()),
        refunds in prop::collection::vec((any::<u32>(), any::<u64>(), prop::option::of(any::<[u8; 32]>())), 0..3),
    ) -> Job {
        let requester = Address::from(ids.2);
        let (created, updated, version, attempt) = numbers;
        Job {
            id: JobId::from_bytes(ids.0),
            claim: ClaimKey::new(&client.requirement.asset, requester, B256::from(ids.1)),
            fingerprint: Fingerprint(ids.3),
            receipt: receipt.then(sample::receipt),
            failure: message.map(|message| Failure { message, ..sample::failure() }),
            refunds: refunds
                .into_iter()
                .map(|(attempt, height, transaction)| Refund {
                    height,
                    transaction: transaction.map(B256::from),
                    ..sample::refund(attempt, 9)
                })
                .collect(),
            client: client.into(), kind, requester, created, updated, version, attempt, state, provider, answer,
            ..sample::job(0)
        }
    }
}

proptest! {
    #[test]
    fn records_round_trip(job in any_job()) {
        let record = job.encode();
        let read = Job::decode(&record).unwrap();
        // `Debug` shows every field, the raw JSON as its text.
        prop_assert_eq!(format!("{read:?}"), format!("{job:?}"));
        prop_assert_eq!(read.encode(), record, "writing is a function of the job alone");
    }

    #[test]
    fn parts_are_the_whole(job in any_job(), trusted in any::<bool>()) {
        let shortfall = trusted.then(|| sample::shortfall(&["pin/2"]));
        let job = Job { trusted, shortfall, ..job };
        let (fixed, record) = (Parts::fixed(&job), Parts::record(&job));
        let answer = job.answer.as_ref().map(json);
        let read = Parts::join(&fixed, &record, answer.as_deref()).unwrap();
        prop_assert_eq!(format!("{read:?}"), format!("{job:?}"));
        // One that an earlier attempt left behind is not this one's.
        let none = Job { answer: None, ..job };
        let left = Parts::join(&fixed, &Parts::record(&none), Some(br#"{"status":200,"headers":[],"body":{"kept":"not"}}"#));
        prop_assert_eq!(left.unwrap().answer, None);
    }

    #[test]
    fn parts_of_another_schema_or_damaged_are_refused(job in any_job(), schema in any::<u16>()) {
        let fixed = Parts::fixed(&job);
        if !Job::reads(schema) {
            let newer = Parts::record(&Job { schema, ..job.clone() });
            let Err(StoreError::Unreadable(why)) = Parts::join(&fixed, &newer, None) else { panic!("it was read") };
            prop_assert!(why.contains(&format!("schema {schema};")), "{}", why);
        }
        let answered = Job { answer: Some(sample::answer(b"{}")), ..job.clone() };
        let lost = Parts::join(&fixed, &Parts::record(&answered), None);
        prop_assert!(matches!(lost, Err(StoreError::Unreadable(_))), "an answer that is gone");
        let half = Parts::join(&fixed[..fixed.len() / 2], &Parts::record(&job), Some(b"{}"));
        prop_assert!(matches!(half, Err(StoreError::Unreadable(_))));
    }

    #[test]
    fn another_schema_is_refused_and_named(job in any_job(), schema in any::<u16>()) {
        prop_assume!(!Job::reads(schema));
        let record = Job { schema, ..job }.encode();
        let Err(StoreError::Unreadable(why)) = Job::decode(&record) else { panic!("it was read") };
        prop_assert!(why.contains(&format!("schema {schema};")), "{}", why);
    }

    #[test]
    fn damage_is_an_error_and_quotes_nothing(job in any_job(), cut in any::<prop::sample::Index>()) {
        let record = job.encode();
        let Err(StoreError::Unreadable(why)) = Job::decode(&record[..cut.index(record.len())]) else {
            panic!("half a record was read")
        };
        prop_assert!(why.starts_with("a job record is damaged at line "), "{}", why);
    }

    #[test]
    fn records_outlive_their_payment_and_retention(job in any_job(), days in 0u64..1000) {
        let retention = std::time::Duration::from_secs(days * 86_400);
        match job.keep_until(retention) {
            Some(until) => {
                prop_assert!(matches!(job.state, State::Completed | State::Refunded | State::Voided));
                prop_assert!(until >= job.updated.saturating_add(days * 86_400_000));
                prop_assert!(until / 1000 >= job.client.valid_before.min(u64::MAX / 1000));
            }
            None => prop_assert!(!matches!(job.state, State::Completed | State::Refunded | State::Voided)),
        }
    }
}

#[test]
fn a_newer_shape_is_refused_by_its_schema() {
    let Err(error) = Job::decode(br#"{"schema":4,"claims":[]}"#) else { panic!("it was read") };
    assert!(
        matches!(error, StoreError::Unreadable(why) if why == "it is of schema 4; this version reads up to 3")
    );
}

#[test]
fn journal_lines_keep_the_event_and_its_time_but_no_answer_body() {
    let job = sample::job(1);
    for event in sample::events(sample::payment("a", 1, 1)) {
        let entry = Entry::decode(&Entry::line(&Step { event: &event, at: job.updated })).unwrap();
        assert_eq!(entry.at, job.updated);
        if let Event::Answered { answer } | Event::AnsweredInPart { answer, .. } = &event {
            assert_eq!(entry.event.name(), event.name());
            let (Event::Answered { answer: kept } | Event::AnsweredInPart { answer: kept, .. }) =
                &entry.event
            else {
                panic!("another event")
            };
            assert_eq!((kept.status, &kept.headers, &kept.body), (200, &answer.headers, &Kept::Not));
        } else {
            assert_eq!(format!("{:?}", entry.event), format!("{event:?}"));
        }
    }
}

/// What a store writes once must never change: every event, wherever it is allowed.
#[test]
fn no_event_changes_what_is_fixed() {
    for state in State::ALL {
        let payment = ProviderPayment { fate: Fate::Open, ..sample::payment("z", 1, 200) };
        let provider = if state == State::Voided { Vec::new() } else { vec![payment] };
        let job = Job { state, provider, ..sample::job(1) };
        let mut allowed = 0;
        for event in sample::events(sample::payment("a", 1, 1)) {
            let Ok(next) = job.apply(&event, job.updated + 1) else { continue };
            allowed += 1;
            assert_eq!(Parts::fixed(&next), Parts::fixed(&job), "{event:?}");
            // An answer is written with the step that made it, and with no other.
            let steps = [Step { event: &event, at: next.updated }];
            let made = matches!(event, Event::Answered { .. } | Event::AnsweredInPart { .. });
            assert_eq!(Parts::answer(&next, &steps).is_some(), made, "{event:?}");
        }
        let ends = matches!(state, State::Uncollected | State::ProviderLost | State::Completed);
        assert!(allowed > 0 || ends, "nothing happens to a job that is {}", state.name());
    }
}
