//! A sold request, as far as it has been read.

use std::sync::Arc;

use http::header::{HOST, HeaderName};
use http::request::Parts;
use http::uri::Authority;
use http::{Request, Uri};

use super::prefer::Prefer;
use super::progress::Upload;
use super::read::Held;
use super::source::Source;
use super::{Inner, Rule};
use crate::broker::{self, NameSort, NamedRoute};
use crate::gate;
use crate::intake::{self, Ask, Content, Data, Label, Raw};
use crate::proxy::{Peer, RequestBody};
use crate::quote_cache::ResourceUrl;
use crate::reason::{Problem, Reason};
use crate::x402::{Asset, Payment};

/// What a client calls its request.
const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");

/// The longest `Idempotency-Key`, in bytes.
const MAX_KEY: usize = 255;

/// What is known of a request so far. What only paid requests have is in allocations of its own: all of this is moved about
/// with each challenge.
pub(super) struct Asked {
    pub(super) parts: Parts,
    pub(super) body: Option<Source<RequestBody>>,
    pub(super) peer: Peer,
    /// The URL as challenges name it.
    pub(super) url: ResourceUrl,
    /// How clients know us, if that is configured; else it is what this request says.
    origin: Option<Arc<Origin>>,
    /// On brokered routes: what is asked for.
    pub(super) ask: Option<Ask>,
    /// On brokered routes with a raw body, until it is read.
    pub(super) raw: Option<Box<Raw>>,
    /// On brokered routes with a form, once it was read as far as its file.
    pub(super) label: Option<Box<Label>>,
    /// On brokered routes, once the body is read.
    pub(super) content: Option<Box<Content>>,
    /// The same, of a form with several files.
    pub(super) files: Vec<Content>,
    /// On routes of the app, once the body is read: where it is, and its digest.
    pub(super) data: Option<Box<(Data, [u8; 32])>>,
    /// The memory the body takes.
    pub(super) held: Option<Held>,
    /// Where the client wants to be told that it is done, or why it is not.
    pub(super) webhook: Option<Box<Result<broker::Webhook, Problem>>>,
    /// How long the client waits for an answer.
    pub(super) prefer: Prefer,
    /// Where those who watch the job see how much of the body there is.
    pub(super) upload: Option<Box<Upload>>,
}

impl Asked {
    pub(super) fn new(request: Request<RequestBody>, peer: Peer, inner: &Inner) -> Self {
        let (parts, body) = request.into_parts();
        let origin = inner.origin.clone();
        let (scheme, authority) = known_as(origin.as_deref(), &parts, &peer);
        let url = ResourceUrl::new(scheme, authority, parts.uri.path());
        Asked {
            parts,
            body: Some(Source::new(body, inner.patience)),
            peer,
            url,
            origin,
            ask: None,
            raw: None,
            label: None,
            content: None,
            files: Vec::new(),
            data: None,
            held: None,
            webhook: None,
            prefer: Prefer::default(),
            upload: None,
        }
    }

    /// As the gate sees it.
    pub(super) fn request<'a>(&'a self, rule: &Rule) -> gate::Request<'a> {
        gate::Request {
            route: rule.id,
            charging: rule.charging,
            method: &self.parts.method,
            path: self.parts.uri.path(),
            url: &self.url,
            ask: self.ask.as_ref(),
        }
    }

    /// Where the client wants to be told that it is done, if it may be.
    pub(super) fn webhook(&self) -> Result<Option<broker::Webhook>, Problem> {
        self.webhook.as_deref().cloned().transpose()
    }

    /// Whether the body was read.
    pub(super) fn is_taken(&self) -> bool {
        self.content.is_some() || self.data.is_some() || !self.files.is_empty()
    }

    /// Decoded bytes; of a body not read yet, as declared.
    pub(super) fn size(&self) -> u64 {
        match (&self.content, &self.ask, &self.data) {
            (Some(content), ..) => content.data.size(),
            (None, Some(_), _) if !self.files.is_empty() => {
                self.files.iter().map(|file| file.data.size()).sum()
            }
            (None, Some(ask), _) => ask.size.saturating_mul(ask.files.into()),
            (None, None, data) => data.as_ref().map_or(0, |data| data.0.size()),
        }
    }

    /// The body, which is here until it is passed on.
    pub(super) fn source(&mut self) -> Result<&mut Source<RequestBody>, Problem> {
        self.body.as_mut().ok_or_else(|| Reason::Internal.into())
    }

    /// What the client calls the bytes.
    pub(super) fn label(&mut self) -> Result<Label, Problem> {
        let label = self.raw.as_ref().map(|raw| &raw.label).or(self.label.as_deref());
        label.cloned().ok_or_else(|| Reason::Internal.into())
    }

    /// Reads a form as far as its file, which says what is asked.
    pub(super) async fn read_fields(&mut self) -> Result<(), Problem> {
        let (ask, label) = self.source()?.file().await?;
        (self.ask, self.label) = (Some(ask), Some(Box::new(label)));
        Ok(())
    }

    /// The payment, with what it is presented for. The body must have been read.
    pub(super) fn present(&self, payment: &Payment, asset: Asset) -> Result<broker::Presented, Problem> {
        let (method, path) = (&self.parts.method, self.parts.uri.path());
        let (_, host) = self.known_as();
        let (fingerprint, has_body) = match (&self.ask, &self.content) {
            (Some(ask), Some(content)) => (intake::fingerprint(method, path, host, ask, content), true),
            (Some(ask), None) if !self.files.is_empty() => {
                (intake::batch_fingerprint(method, path, host, ask, &self.files), true)
            }
            _ => {
                let (data, digest) = self.data.as_deref().ok_or(Reason::Internal)?;
                let body = intake::Body::Digest(digest);
                let query = self.parts.uri.query();
                (intake::app_fingerprint(method, path, query, host, body), data.size() > 0)
            }
        };
        Ok(broker::Presented {
            version: payment.version(),
            authorization: *payment.authorization(),
            asset,
            quote_id: payment.accepted().and_then(|accepted| accepted.extra.quote_id.clone()),
            fingerprint,
            has_body,
            announce: broker::Announce::default(),
        })
    }

    /// The client's own name for this request, for a look at what became of it.
    pub(super) fn idempotency_key(&self) -> Result<Option<broker::IdempotencyKey>, Problem> {
        let key = self.key_field()?;
        Ok(key.map(|key| broker::IdempotencyKey::new(&self.named_route(), key)))
    }

    /// The client's own names for this request, as the payer's.
    pub(super) fn names(&self, payment: &Payment) -> Result<Vec<broker::RequestName>, Problem> {
        let route = self.named_route();
        let named =
            |sort, name: &[u8]| broker::RequestName::new(sort, payment.authorization().from, &route, name);
        let identifier = payment.identifier().map(str::as_bytes);
        let identifier = identifier.map(|id| named(NameSort::PaymentIdentifier, id));
        let key = self.key_field()?.map(|key| named(NameSort::IdempotencyKey, key));
        Ok(identifier.into_iter().chain(key).collect())
    }

    fn key_field(&self) -> Result<Option<&[u8]>, Problem> {
        // Mostly there is none; to compare the few names there are costs less than to hash one.
        let mut lines = self.parts.headers.iter().filter(|(name, _)| **name == IDEMPOTENCY_KEY);
        let Some((_, key)) = lines.next() else { return Ok(None) };
        let printable = |byte: &u8| (0x20..0x7f).contains(byte);
        let key = key.as_bytes();
        if lines.next().is_some() || !(1..=MAX_KEY).contains(&key.len()) || !key.iter().all(printable) {
            let why = format!("send one Idempotency-Key of 1 to {MAX_KEY} printable ASCII characters");
            return Err(Problem::new(Reason::IdentifierInvalid).message(why));
        }
        Ok(Some(key))
    }

    fn named_route(&self) -> NamedRoute {
        let (_, authority) = self.known_as();
        NamedRoute::new(&self.parts.method, authority, self.parts.uri.path())
    }

    /// What URLs of one of the gateway's own endpoints start with: those of stored files, or of jobs.
    pub(super) fn own_url(&self, segment: Option<&str>) -> String {
        let (scheme, authority) = self.known_as();
        format!("{scheme}://{authority}/{}/", segment.unwrap_or_default().trim_matches('/'))
    }

    /// Scheme and authority, as the client knows us.
    fn known_as(&self) -> (&str, &str) {
        known_as(self.origin.as_deref(), &self.parts, &self.peer)
    }
}

/// Scheme and authority of the URL that clients know us by.
pub(super) struct Origin {
    scheme: String,
    authority: String,
}

impl From<&Uri> for Origin {
    fn from(url: &Uri) -> Self {
        let authority = url.authority().map(|authority| authority.as_str().to_owned());
        let scheme = url.scheme_str().unwrap_or("https").to_owned();
        Origin { scheme, authority: authority.unwrap_or_default() }
    }
}

fn known_as<'a>(origin: Option<&'a Origin>, parts: &'a Parts, peer: &Peer) -> (&'a str, &'a str) {
    if let Some(Origin { scheme, authority }) = origin {
        return (scheme, authority);
    }
    // There is one at most, and it mostly stands first.
    let host = parts.headers.iter().find(|(name, _)| **name == HOST);
    let host = host.and_then(|(_, host)| host.to_str().ok());
    let authority = host.or_else(|| parts.uri.authority().map(Authority::as_str));
    (peer.scheme(&parts.headers), authority.unwrap_or_default())
}

/// A payment, as the gate sees it.
pub(super) fn presented(payment: &Payment) -> gate::Presented<'_> {
    gate::Presented {
        version: payment.version(),
        network: payment.network(),
        pay_to: payment.authorization().to,
        value: payment.authorization().value,
        accepted: payment.accepted().map(|accepted| gate::Echo {
            network: accepted.network,
            asset: accepted.asset,
            pay_to: accepted.pay_to,
            amount: accepted.amount,
            max_timeout_seconds: accepted.max_timeout_seconds,
            flow: accepted.extra.flow,
            quote_id: accepted.extra.quote_id.as_deref(),
        }),
    }
}
