//! The token on the test chain: who has what, what was paid, and doing to it what a payer or a stranger might.

use alloy::primitives::{Bytes, FixedBytes, U256, hex};
use alloy::signers::SignerSync;
use alloy::signers::local::PrivateKeySigner;
use alloy::sol_types::{SolCall, SolEvent, SolValue};
use galaksio::clock::Clock;
use galaksio::money::Amount;
use galaksio::x402::abi::sign_cancel;
use galaksio::x402::{Address, Asset, Authorization, B256, Domain};
use serde_json::{Value, json};

use self::abi::*;
use crate::anvil::{Chain, RpcError, bytes, creation_code, hash, new_key, number, quantity};

/// The token's functions and events, and the wallet factory's.
pub(crate) mod abi {
    alloy::sol! {
        function mint(address to, uint256 value);
        function burn(address from, uint256 value);
        function transfer(address to, uint256 value) returns (bool);
        function balanceOf(address account) returns (uint256);
        function authorizationState(address authorizer, bytes32 nonce) returns (bool);
        function DOMAIN_SEPARATOR() returns (bytes32);
        function cancelAuthorization(address authorizer, bytes32 nonce, bytes signature);
        function transferWithAuthorization(
            address from, address to, uint256 value, uint256 validAfter, uint256 validBefore, bytes32 nonce, bytes signature
        );
        function create(address owner, bytes32 salt) returns (address wallet);
        function addressOf(address owner, bytes32 salt) returns (address);

        event Transfer(address indexed from, address indexed to, uint256 value);
        event AuthorizationUsed(address indexed authorizer, bytes32 indexed nonce);
    }
}

/// Who prints money.
const PRINTER: Address = Address::repeat_byte(0x9f);

/// Where the factory of smart wallets is, once a test asked for it.
pub(crate) const FACTORY: Address = Address::repeat_byte(0xfa);

/// Money that moved on the chain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Transfer {
    pub(crate) from: Address,
    pub(crate) to: Address,
    pub(crate) value: Amount,
    pub(crate) block: u64,
    pub(crate) transaction: B256,
}

impl Chain {
    /// Puts a token of this name and version at `address`.
    pub(crate) async fn place_token(&self, address: Address, name: &str, version: &str) {
        let arguments = (name, version).abi_encode_params();
        self.place(address, &creation_code()("Token"), &arguments).await;
    }

    /// Gives `account` more, in atomic units, in a block of its own.
    pub(crate) async fn mint(&self, account: Address, units: u64) {
        self.print(&mintCall { to: account, value: U256::from(units) }.abi_encode()).await;
    }

    /// Takes from `account`, in atomic units, in a block of its own.
    pub(crate) async fn burn(&self, account: Address, units: u64) {
        self.print(&burnCall { from: account, value: U256::from(units) }.abi_encode()).await;
    }

    /// A payer with this much, in atomic units: the private key, as programs want it, and the address.
    pub(crate) async fn payer(&self, units: u64) -> (String, Address) {
        let (key, address) = new_key();
        self.mint(address, units).await;
        (key, address)
    }

    /// The owner himself moves his money. As all that follows, it waits for the next block.
    pub(crate) async fn transfer(&self, from: Address, to: Address, units: u64) -> B256 {
        let input = transferCall { to, value: U256::from(units) }.abi_encode();
        self.write(from, &input).await
    }

    /// The payer makes an authorization worthless.
    pub(crate) async fn cancel(&self, key: &str, authorizer: Address, nonce: B256) -> B256 {
        let signature = sign_cancel(&self.asset(), authorizer, nonce, &key.parse().unwrap()).unwrap();
        let call = cancelAuthorizationCall { authorizer, nonce, signature: signature.to_vec().into() };
        self.write(authorizer, &call.abi_encode()).await
    }

    /// Somebody submits an authorization, as anybody may.
    pub(crate) async fn submit(&self, by: Address, authorization: &Authorization, signature: &[u8]) -> B256 {
        self.write(by, &transferWithAuthorizationCall::from((authorization, signature)).abi_encode()).await
    }

    /// What an account has, in atomic units.
    pub(crate) async fn balance(&self, account: Address) -> u64 {
        self.balance_at(account, "latest").await
    }

    /// What an account had at the end of a block: a number (`0x` and hex) or a tag.
    pub(crate) async fn balance_at(&self, account: Address, block: &str) -> u64 {
        let input = hex::encode_prefixed(balanceOfCall { account }.abi_encode());
        let call = json!({ "to": self.asset().address, "data": input });
        let answer = self.rpc("eth_call", json!([call, block])).await;
        balanceOfCall::abi_decode_returns(&bytes(&answer)).unwrap().to()
    }

    /// Whether an authorization was used or cancelled.
    pub(crate) async fn is_used(&self, authorizer: Address, nonce: B256) -> bool {
        let input = authorizationStateCall { authorizer, nonce }.abi_encode();
        authorizationStateCall::abi_decode_returns(&self.read(&input).await.unwrap()).unwrap()
    }

    /// The token's own EIP-712 domain separator.
    pub(crate) async fn domain_separator(&self) -> FixedBytes<32> {
        let answer = self.read(&DOMAIN_SEPARATORCall {}.abi_encode()).await.unwrap();
        DOMAIN_SEPARATORCall::abi_decode_returns(&answer).unwrap()
    }

    /// Every movement of money from block `first` on, oldest first, minting too.
    pub(crate) async fn transfers_since(&self, first: u64) -> Vec<Transfer> {
        let topics = json!([abi::Transfer::SIGNATURE_HASH]);
        self.logs(first, topics).await.iter().map(read_transfer).collect()
    }

    /// The nonces of `authorizer` that were spent from block `first` on.
    pub(crate) async fn spent_since(&self, first: u64, authorizer: Address) -> Vec<B256> {
        let topics = json!([abi::AuthorizationUsed::SIGNATURE_HASH, authorizer.into_word()]);
        self.logs(first, topics).await.iter().map(|log| hash(&log["topics"][2])).collect()
    }

    /// An account that is a contract, with the account that signs for it. It exists on the chain only once
    /// [`Chain::create_wallet`] made it, or whoever follows an ERC-6492 signature did.
    pub(crate) async fn wallet_of(&self, owner: Address) -> Address {
        if self.code(FACTORY).await.is_empty() {
            self.place(FACTORY, &creation_code()("SmartWalletFactory"), &[]).await;
        }
        let input = addressOfCall { owner, salt: B256::ZERO }.abi_encode();
        let answer = self.call(FACTORY, &input).await.unwrap();
        addressOfCall::abi_decode_returns(&answer).unwrap()
    }

    /// Makes the wallet of [`Chain::wallet_of`], which is there with the next block.
    pub(crate) async fn create_wallet(&self, owner: Address) -> Address {
        let wallet = self.wallet_of(owner).await;
        let input = createCall { owner, salt: B256::ZERO }.abi_encode();
        let created = self.send_as(owner, FACTORY, &input).await;
        assert!(self.mined(created).await, "no wallet for {owner}");
        wallet
    }

    /// A signature for a wallet that does not exist yet: how to make it, and its owner's signature (ERC-6492).
    pub(crate) fn signature_6492(owner: Address, signature: &[u8]) -> Vec<u8> {
        let create = createCall { owner, salt: B256::ZERO }.abi_encode();
        let wrapped = (FACTORY, Bytes::from(create), Bytes::copy_from_slice(signature));
        [wrapped.abi_encode_params(), [0x64, 0x92].repeat(16)].concat()
    }

    async fn print(&self, input: &[u8]) {
        let _one_at_a_time = self.printing.lock().await;
        let transaction = self.write(PRINTER, input).await;
        self.mine(1).await;
        assert!(self.mined(transaction).await, "the token refuses to print money");
    }

    async fn read(&self, input: &[u8]) -> Result<Vec<u8>, RpcError> {
        self.call(self.asset().address, input).await
    }

    async fn write(&self, from: Address, input: &[u8]) -> B256 {
        self.send_as(from, self.asset().address, input).await
    }

    async fn logs(&self, first: u64, topics: Value) -> Vec<Value> {
        let filter =
            json!({ "address": self.asset().address, "fromBlock": quantity(first), "topics": topics });
        self.rpc("eth_getLogs", json!([filter])).await.as_array().unwrap().clone()
    }
}

impl From<(&Authorization, &[u8])> for transferWithAuthorizationCall {
    fn from((authorization, signature): (&Authorization, &[u8])) -> Self {
        transferWithAuthorizationCall {
            from: authorization.from,
            to: authorization.to,
            value: U256::from(authorization.value.units()),
            validAfter: U256::from(authorization.valid_after),
            validBefore: U256::from(authorization.valid_before),
            nonce: authorization.nonce,
            signature: Bytes::copy_from_slice(signature),
        }
    }
}

/// An authorization for ten minutes from now on, of an amount in atomic units.
pub(crate) fn authorization(from: Address, to: Address, units: u64) -> Authorization {
    let now = Clock::system().now();
    let mut nonce = B256::ZERO;
    ring::rand::SecureRandom::fill(&ring::rand::SystemRandom::new(), nonce.as_mut_slice()).unwrap();
    let value = Amount::new(units.into());
    Authorization { from, to, value, valid_after: now - 600, valid_before: now + 600, nonce }
}

/// The signature of whoever has `key`, in whosoever's name.
pub(crate) fn sign(asset: &Asset, key: &str, authorization: &Authorization) -> [u8; 65] {
    let signer: PrivateKeySigner = key.parse().unwrap();
    signer.sign_hash_sync(&Domain::new(asset).digest(authorization)).unwrap().as_bytes()
}

fn read_transfer(log: &Value) -> Transfer {
    let account = |topic: usize| Address::from_word(hash(&log["topics"][topic]));
    Transfer {
        from: account(1),
        to: account(2),
        value: Amount::new(U256::from_be_slice(&bytes(&log["data"])).to()),
        block: number(&log["blockNumber"]),
        transaction: hash(&log["transactionHash"]),
    }
}
