//! Chains and tokens that are not what the configuration says.

use super::fake::{Fake, Mood, TOKEN, chain};
use crate::chain::{ChainError, Misfit};
use crate::x402::{Address, Asset, B256, Network, abi};

fn asset() -> Asset {
    Asset { network: Network(84_532), address: TOKEN, name: "USDC".into(), version: "2".into(), decimals: 6 }
}

async fn token(
    name: Option<&'static str>,
    version: Option<&'static str>,
    separator: Option<B256>,
) -> Vec<Misfit> {
    let fake = Fake::start(100).await;
    {
        let mut says = fake.says.lock();
        (says.name, says.version, says.separator) = (name, version, separator);
    }
    chain(&[&fake], 100).0.check(&[&asset()]).await.unwrap()
}

#[tokio::test]
async fn a_token_is_known_by_its_domain() {
    let (right, wrong) = (abi::domain_separator(&asset()), B256::repeat_byte(1));
    for fits in [
        token(Some("USDC"), Some("2"), Some(right)),
        // Some tokens go by another name than the one of their domain.
        token(Some("USD Coin"), Some("1"), Some(right)),
        token(None, None, Some(right)),
        token(Some("USDC"), Some("2"), None),
        token(Some("USDC"), None, None),
        token(None, None, None),
    ] {
        assert_eq!(fits.await, []);
    }
    for (misfit, said) in [
        (token(Some("USD Coin"), Some("2"), Some(wrong)), r#"its name is "USD Coin" and its version "2","#),
        (token(Some("USDC"), Some("1"), None), r#"and its version "1","#),
        (token(Some("USD Coin"), None, None), r#"its name is "USD Coin" and its version nothing"#),
        (token(Some("USDC"), Some("2"), Some(wrong)), "a domain separator that fits neither"),
    ] {
        let misfit = misfit.await;
        assert_eq!(misfit.len(), 1);
        let text = misfit[0].to_string();
        assert!(text.contains(said) && text.contains(r#"name "USDC", version "2""#), "{text}");
        assert!(text.contains(&TOKEN.to_checksum(None)) && text.contains("fix: correct `name`"), "{text}");
    }
}

#[tokio::test]
async fn an_endpoint_of_another_chain_and_an_address_without_a_contract_are_told() {
    let (other, right) = (Fake::start(100).await, Fake::start(100).await);
    other.says.lock().chain_id = 8453;
    right.says.lock().without_code = true;
    let (both, _) = chain(&[&other, &right], 100);
    let elsewhere = Asset { network: Network(1), address: Address::repeat_byte(9), ..asset() };
    let misfits = both.check(&[&asset(), &elsewhere]).await.unwrap();
    let texts: Vec<String> = misfits.iter().map(ToString::to_string).collect();
    assert_eq!(texts.len(), 2, "{texts:?}");
    assert!(texts[0].contains("is of chain 8453, not of eip155:84532"), "{texts:?}");
    assert!(texts[1].contains("no contract at 0x7070"), "{texts:?}");
    assert!(!texts.join("").contains("s3cret"), "{texts:?}");
    // Of the token, one of another chain cannot tell.
    let (alone, _) = chain(&[&other], 100);
    assert!(matches!(alone.check(&[&asset()]).await.unwrap()[..], [Misfit::WrongChain { found: 8453, .. }]));
}

#[tokio::test]
async fn a_chain_that_does_not_answer_is_neither_right_nor_wrong() {
    for mood in [Mood::Html, Mood::Unavailable, Mood::Limited, Mood::Silent] {
        let fake = Fake::start(100).await;
        fake.says.lock().mood = mood;
        let (chain, _) = chain(&[&fake], 100);
        assert!(matches!(chain.check(&[&asset()]).await, Err(ChainError::Away(_))), "{mood:?}");
    }
}
