use super::*;
use crate::jobs::job::{Fate, ProviderPayment};
use crate::providers::{Offer, PurseError};
use crate::x402::fixtures::{KEY, NOW, authorization, challenge, payer, requirement, usdc};
use crate::x402::{Challenge, Network, Payment, PaymentFlow, Requirement, Version, Window, check};
use http::HeaderMap;
use proptest::prelude::*;

fn wallet() -> Wallet {
    Wallet::new(KEY.into(), "0.05", vec![usdc()]).unwrap()
}

fn claim() -> ClaimKey {
    ClaimKey::new(&usdc(), Address::repeat_byte(1), B256::repeat_byte(2))
}

fn offer() -> Offer {
    let Requirement { asset, amount, pay_to, .. } = requirement();
    Offer { cost: amount, asset, pay_to }
}

/// The challenge of these requirements in one.
fn challenge_of(requirements: &[Requirement]) -> Challenge {
    let mut parts = requirements.iter().map(|requirement| challenge(Version::V2, requirement));
    let mut whole = parts.next().unwrap();
    whole.accepts.extend(parts.flat_map(|part| part.accepts));
    whole
}

fn pay(
    challenge: &Challenge,
    offer: &Offer,
    recorded: Option<&ProviderPayment>,
    now: u64,
) -> Result<Signed, PurseError> {
    let claim = claim();
    let spend = Spend { claim: &claim, attempt: 1, step: "execute", provider: "merit", challenge, offer };
    wallet().pay(&spend, recorded, now, NOW + 120)
}

fn is_terms<T: std::fmt::Debug>(outcome: Result<T, PurseError>) -> bool {
    matches!(outcome, Err(PurseError::Terms(_)))
}

#[test]
fn key_is_hex_with_or_without_prefix_and_is_never_shown() {
    let digits = KEY.trim_start_matches("0x");
    for text in [KEY.to_owned(), digits.to_owned(), digits.to_uppercase(), format!("{KEY}\n")] {
        let wallet = Wallet::new(text.into(), "1", vec![]).unwrap();
        assert_eq!(wallet.address(), payer().address());
        assert!(!format!("{wallet:?}").to_lowercase().contains(&digits[..8]));
    }
    let zero = "0".repeat(64);
    let order = "fffffffffffffffffffffffffffffffebaaedce6af48a03bbfd25e8cd0364141";
    for bad in ["", "0x", &digits[1..], "0X59", &digits.replace('5', "g"), &zero, order, &format!("0x{KEY}")]
    {
        let error = Wallet::new(bad.to_owned().into(), "1", vec![]).unwrap_err();
        assert_eq!(error, WalletError::Key);
    }
    assert!(matches!(Wallet::new(KEY.into(), "a lot", vec![usdc()]), Err(WalletError::Cap(_))));
}

#[test]
fn signs_only_its_own_within_the_cap_in_its_assets() {
    let wallet = wallet();
    let signed = authorization(&requirement());
    assert!(wallet.sign(&usdc(), &signed).is_ok());
    let sum = |units| Authorization { value: Amount::new(units), ..signed };
    assert!(wallet.sign(&usdc(), &sum(50_000)).is_ok());
    let over = WalletError::OverCap { amount: Amount::new(50_001), cap: Amount::new(50_000) };
    assert_eq!(wallet.sign(&usdc(), &sum(50_001)), Err(over));
    let theirs = Authorization { from: signed.to, ..signed };
    assert_eq!(wallet.sign(&usdc(), &theirs), Err(WalletError::NotOurs));
    let renamed = Asset { name: "USD Coin".into(), ..usdc() };
    assert!(matches!(wallet.sign(&renamed, &signed), Err(WalletError::Asset(..))));
}

/// These bytes are a promise: an upgrade that derives others can pay one step twice.
#[test]
fn derived_nonces_never_change() {
    let nonce = wallet().nonce(&claim(), "execute", 1);
    assert_eq!(format!("{nonce:#x}"), "0x8a3dc895f456fd2a816f789b5a381e0392384323c6fad8b30b7bd69992ee9b96");
}

#[test]
fn payment_is_right_for_the_seller_and_lasts_until_our_deadline() {
    for version in [Version::V1, Version::V2] {
        let challenge = challenge(version, &requirement());
        let Signed { payment, header } = pay(&challenge, &offer(), None, NOW).unwrap();
        assert!(header.value.is_sensitive());
        assert_eq!(payment.valid_before, NOW + 120);
        assert_eq!(payment.fate, Fate::Open);
        let headers = HeaderMap::from_iter([(header.name, header.value)]);
        let sent = Payment::from_headers(&headers, 32 * 1024).unwrap().unwrap();
        let (window, wanted) = (Window { now: NOW, needed: 6 }, requirement());
        let verified = check(&sent, &wanted, &Domain::new(&usdc()), window).unwrap();
        let signed = verified.payment().authorization();
        assert_eq!((signed.nonce, signed.valid_after), (payment.nonce, 0));
    }
    // The provider's own limit is nearer than our deadline.
    let hasty = Requirement { max_timeout_seconds: 30, ..requirement() };
    let signed = pay(&challenge_of(&[hasty]), &offer(), None, NOW).unwrap();
    assert_eq!(signed.payment.valid_before, NOW + 30);
}

#[test]
fn a_repeat_is_the_same_payment_though_time_has_passed() {
    let challenge = challenge_of(&[requirement()]);
    let first = pay(&challenge, &offer(), None, NOW).unwrap();
    let again = pay(&challenge, &offer(), Some(&first.payment), NOW + 50).unwrap();
    assert_eq!(again.payment, first.payment);
    assert_eq!(again.header.value, first.header.value);

    // A cheaper entry that turned up meanwhile does not change what was signed.
    let cheaper = Requirement { amount: Amount::new(1), ..requirement() };
    let both = challenge_of(&[cheaper.clone(), requirement()]);
    assert_eq!(pay(&both, &offer(), Some(&first.payment), NOW).unwrap().payment, first.payment);
    // Other terms, or another record, are not paid.
    assert!(is_terms(pay(&challenge_of(&[cheaper]), &offer(), Some(&first.payment), NOW)));
    for changed in [
        ProviderPayment { attempt: 2, ..first.payment.clone() },
        ProviderPayment { step: "pin".into(), ..first.payment.clone() },
        ProviderPayment { provider: "other".into(), ..first.payment.clone() },
        ProviderPayment { nonce: B256::ZERO, ..first.payment.clone() },
        ProviderPayment { pay_to: Address::ZERO, ..first.payment.clone() },
    ] {
        assert!(is_terms(pay(&challenge, &offer(), Some(&changed), NOW)));
    }
    let late = pay(&challenge, &offer(), Some(&first.payment), NOW + 111);
    assert_eq!(late.unwrap_err(), PurseError::Late);
}

#[test]
fn too_little_time_is_not_signed_for() {
    let challenge = challenge_of(&[requirement()]);
    assert!(pay(&challenge, &offer(), None, NOW + 110).is_ok());
    assert_eq!(pay(&challenge, &offer(), None, NOW + 111).unwrap_err(), PurseError::Late);
}

#[test]
fn only_the_quoted_terms_are_paid() {
    let base = requirement();
    let cap = Amount::new(50_000);
    let select_from = |requirements: &[Requirement]| {
        select(&challenge_of(requirements), &offer(), cap)
            .map(|offered| (offered.amount.units(), offered.flow))
    };
    let dearer = Requirement { amount: Amount::new(10_001), ..base.clone() };
    let elsewhere = Requirement { pay_to: Address::ZERO, ..base.clone() };
    let mainnet = Requirement { asset: Asset::default_for(Network(8453)).unwrap(), ..base.clone() };
    let renamed = Requirement { asset: Asset { name: "USD Coin".into(), ..usdc() }, ..base.clone() };
    for wrong in [&dearer, &elsewhere, &mainnet, &renamed] {
        assert!(is_terms(select_from(std::slice::from_ref(wrong))));
    }
    let cheaper = Requirement { amount: Amount::new(9_000), ..base.clone() };
    let after = Requirement { flow: PaymentFlow::Authorization, ..base.clone() };
    let upfront = PaymentFlow::Upfront;
    assert_eq!(select_from(&[dearer, base.clone(), cheaper.clone()]), Ok((9_000, upfront)));
    assert_eq!(select_from(&[base.clone(), after]), Ok((10_000, PaymentFlow::Authorization)));

    let over = select(&challenge_of(&[base]), &offer(), Amount::new(9_999)).unwrap_err();
    assert_eq!(over, PurseError::OverCap { amount: Amount::new(10_000), cap: Amount::new(9_999) });
}

#[test]
fn a_missing_domain_is_understood_for_known_tokens_only() {
    let mut bare = challenge_of(&[requirement()]);
    bare.accepts[0].domain = None;
    assert!(select(&bare, &offer(), Amount::new(50_000)).is_ok());

    let asset = Asset { address: Address::repeat_byte(9), ..usdc() };
    let unknown = Requirement { asset: asset.clone(), ..requirement() };
    let offer = Offer { asset, ..offer() };
    let mut named = challenge_of(&[unknown]);
    assert!(select(&named, &offer, Amount::new(50_000)).is_ok());
    named.accepts[0].domain = None;
    assert!(is_terms(select(&named, &offer, Amount::new(50_000)).map(|_| ())));
    // Understood, but not a token this wallet pays in.
    assert!(is_terms(pay(&named, &offer, None, NOW)));
}

#[test]
fn identifiers_are_well_formed_and_say_nothing_of_the_nonce() {
    let wallet = wallet();
    let claim = ClaimKey::new(&usdc(), Address::repeat_byte(1), B256::ZERO);
    let id = wallet.identifier(&claim, "pay", 1);
    assert_eq!((id.len(), id.clone()), (36, wallet.identifier(&claim, "pay", 1)));
    let nonce = hex::encode(wallet.nonce(&claim, "pay", 1));
    assert!(!nonce.contains(&id[4..]) && !claim.as_str().contains(&id[4..]));
    let others = [wallet.identifier(&claim, "pay", 2), wallet.identifier(&claim, "pin", 1)];
    assert!(!others.contains(&id));
}

proptest! {
    #[test]
    fn nonces_differ_where_steps_do(
        a in ("[a-z/]{0,6}", 1u32..4, 0u8..3), b in ("[a-z/]{0,6}", 1u32..4, 0u8..3),
    ) {
        let wallet = wallet();
        let nonce = |(step, attempt, from): &(String, u32, u8)| {
            wallet.nonce(&ClaimKey::new(&usdc(), Address::repeat_byte(*from), B256::ZERO), step, *attempt)
        };
        prop_assert_eq!(nonce(&a) == nonce(&b), a == b);
    }
}
