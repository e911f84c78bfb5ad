//! Reasons: one code for each way a request can end, the same in the answer, the access log and the metric.
//!
//! This is the one table from an outcome to its HTTP status, to whether the client was charged, and to what it
//! should do next. Codes are part of the public surface: add, never rename.

use serde::Serialize;
use serde_json::Value;

use crate::ids::JobId;

macro_rules! reasons {
    ($($(#[$doc:meta])* $name:ident = $code:literal, $status:literal, $retry:ident, $text:literal;)*) => {
        /// Why a request ended as it did.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum Reason {
            $($(#[$doc])* $name,)*
        }

        impl Reason {
            /// Every reason, for the documentation and the metrics.
            pub const ALL: &'static [Reason] = &[$(Reason::$name,)*];

            /// The stable code: `payment_expired`.
            pub const fn code(self) -> &'static str {
                match self { $(Reason::$name => $code,)* }
            }

            /// The HTTP status it is answered with.
            pub const fn status(self) -> u16 {
                match self { $(Reason::$name => $status,)* }
            }

            /// The reason with this code.
            pub fn from_code(code: &str) -> Option<Reason> {
                Reason::ALL.iter().copied().find(|reason| reason.code() == code)
            }

            /// What a client that tried to pay should do next.
            pub const fn retry(self) -> Retry {
                match self { $(Reason::$name => Retry::$retry,)* }
            }

            /// `error` of the answer, where nothing more precise is known.
            pub const fn text(self) -> &'static str {
                match self { $(Reason::$name => $text,)* }
            }
        }
    };
}

/// What a client that tried to pay should do next.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Retry {
    /// Send the identical payment again: it is not used up, or its answer is still to come.
    SamePayment,
    /// Ask for a new challenge and sign anew: this payment buys nothing.
    NewPayment,
    /// Neither helps; the request itself is at fault.
    Never,
}

/// Whether the client's money moved.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Charged {
    /// It did not, and by this payment will not.
    No,
    /// It did.
    Yes,
    /// Nobody knows yet.
    Unknown,
}

impl Charged {
    /// The word for it, as in the JSON of a problem.
    pub fn name(self) -> &'static str {
        match self {
            Charged::No => "no",
            Charged::Yes => "yes",
            Charged::Unknown => "unknown",
        }
    }
}

reasons! {
    // Passed on
    /// A free request, answered by the app.
    Passed = "ok", 200, Never, "ok";
    /// Paid and done.
    Paid = "paid", 200, Never, "ok";
    /// Done, and to be paid for right after the answer.
    Trusted = "trusted", 200, Never, "ok";
    /// The answer of an earlier request with the same payment.
    Replayed = "replayed", 200, Never, "ok";
    /// Paid for, and worked on: the answer is at the job's URL once it is done.
    Accepted = "accepted", 202, SamePayment, "accepted";
    /// One of the gateway's own documents.
    Own = "own", 200, Never, "ok";

    // The request is at fault; nothing was asked for, nothing is charged
    /// `//`, dot segments, encoded slashes, control characters.
    AmbiguousPath = "ambiguous_path", 400, Never, "the path has more than one reading; send it without //, dot segments, encoded slashes, backslashes or control characters";
    /// Framing or a header field that HTTP does not allow.
    BadRequest = "bad_request", 400, Never, "the request is not valid HTTP";
    /// The body is not JSON.
    InvalidJson = "invalid_json", 400, Never, "the body is not valid JSON";
    /// No `data`, or an empty one.
    DataRequired = "data_required", 400, Never, "data is required";
    /// No `code`, or an empty one.
    CodeRequired = "code_required", 400, Never, "code is required";
    /// A field the operation does not have, or a value of the wrong type.
    InvalidField = "invalid_field", 400, Never, "the request has a field that is unknown or of the wrong type";
    /// `encoding` says base64 and the data is not.
    InvalidBase64 = "invalid_base64", 400, Never, "the data is not valid base64";
    /// An option or language nobody sells.
    NotSold = "not_sold", 400, Never, "no provider sells this";
    /// A `multipart/form-data` body that cannot be read, or has a field too many, too late or not at all.
    InvalidForm = "invalid_form", 400, Never, "the body is not a valid form";
    /// A URL in place of data that is not to be fetched: no web URL, or not at a public address.
    UrlRefused = "url_refused", 400, Never, "this URL is not fetched";
    /// A form of input that is understood but not offered, such as `{url}`.
    NotSupported = "not_supported", 400, Never, "this form of input is not supported";
    /// More than one payment header line of the same name.
    RepeatedPayment = "repeated_payment_header", 400, Never, "send exactly one payment header";
    /// A `payment-identifier` or `Idempotency-Key` that is none, or several.
    IdentifierInvalid = "identifier_invalid", 400, Never, "the payment-identifier or Idempotency-Key is not valid";
    /// Neither `Content-Length` nor `?size=`.
    LengthRequired = "length_required", 411, Never, "send Content-Length, or the size as ?size=";
    /// Over a limit in bytes.
    TooLarge = "too_large", 413, Never, "the body is larger than this gateway or any provider takes";
    /// `Content-Type` is not one the route reads.
    UnsupportedMediaType = "unsupported_media_type", 415, Never, "this content type is not supported here";
    /// The body did not arrive in time.
    BodyTimeout = "body_timeout", 408, SamePayment, "the body did not arrive in time";
    /// The client closed before its body was complete.
    BodyIncomplete = "body_incomplete", 400, SamePayment, "the body ended before it was complete";
    /// A request head over the limit.
    HeaderTooLarge = "header_too_large", 431, Never, "the request header is too large";
    /// CONNECT or another method that is not proxied.
    MethodNotAllowed = "method_not_allowed", 405, Never, "this method is not allowed here";

    // Payment wanted
    /// No payment yet.
    PaymentRequired = "payment_required", 402, NewPayment, "Payment required";
    /// Not base64, not JSON, or not the shape of a payment.
    PaymentMalformed = "payment_malformed", 402, NewPayment, "the payment header cannot be decoded";
    /// `x402Version` is not 1 or 2, or not the header's.
    PaymentVersion = "payment_version", 402, NewPayment, "the payment's x402 version is not supported";
    /// Another scheme than `exact`.
    PaymentScheme = "payment_scheme", 402, NewPayment, "the payment's scheme is not offered";
    /// A network that is not offered.
    PaymentNetwork = "payment_network", 402, NewPayment, "the payment's network is not offered";
    /// A token that is not offered.
    PaymentAsset = "payment_asset", 402, NewPayment, "the payment's asset is not offered";
    /// Not exactly the price.
    PaymentAmount = "payment_amount", 402, NewPayment, "the payment is not of exactly the required amount";
    /// To somebody else.
    PaymentPayee = "payment_payee", 402, NewPayment, "the payment is to another payee";
    /// `validBefore` is past or too near.
    PaymentExpired = "payment_expired", 402, NewPayment, "the payment has expired, or expires before the work can be done";
    /// `validAfter` is in the future.
    PaymentNotYetValid = "payment_not_yet_valid", 402, NewPayment, "the payment is not valid yet";
    /// `validBefore` is unreasonably far away.
    PaymentTooLong = "payment_window_too_long", 402, NewPayment, "the payment is valid for longer than was offered";
    /// The signature is not the payer's.
    PaymentSignature = "payment_signature", 402, NewPayment, "the payment's signature is not the payer's";
    /// The facilitator says it would not settle.
    PaymentRejected = "payment_rejected", 402, NewPayment, "the facilitator rejected the payment";
    /// The quote in the payment is not one of ours, or not for this request.
    QuoteInvalid = "quote_invalid", 402, NewPayment, "the quote in the payment is not one made for this request";
    /// The quote's time is over.
    QuoteExpired = "quote_expired", 402, NewPayment, "the quote has expired";
    /// The provider's price rose beyond the loss limit; not charged.
    QuoteWithdrawn = "quote_withdrawn", 402, NewPayment, "the provider's price has risen; here is a new quote";
    /// Settlement was refused for good.
    SettlementRefused = "settlement_refused", 402, NewPayment, "the payment could not be settled";

    // The same payment again
    /// The payment was already presented for something else.
    PaymentReused = "payment_reused", 409, NewPayment, "this payment was already used for another request";
    /// The payer's name for this request is that of another request.
    IdentifierReused = "identifier_reused", 409, Never, "this payment-identifier or Idempotency-Key was already used for another request";
    /// Its job is still running; the answer will come.
    JobRunning = "job_running", 503, SamePayment, "the job of this payment is still running";
    /// Its settlement has an unknown outcome.
    SettlementUnknown = "settlement_unknown", 503, SamePayment, "the outcome of the settlement is not known yet; send the same payment again";
    /// The answer was too large to keep.
    NotKept = "not_kept", 410, Never, "the job is completed and paid, but its answer was too large to keep";
    /// The answer was too large for the store, and another gateway has it.
    KeptElsewhere = "kept_elsewhere", 503, SamePayment, "the job is completed and paid; another gateway has its answer";
    /// The work was done, the client's money never came: the answer is withheld from now on.
    Uncollected = "uncollected", 402, NewPayment, "the work was done but the payment could not be collected; the result is withheld, and what this wallet buys may be settled before the work from now on";

    // Work that failed
    /// The provider failed or refused, and was not paid.
    ProviderFailed = "provider_failed", 502, SamePayment, "the provider could not do the work";
    /// The provider took too long, and was not paid.
    ProviderTimeout = "provider_timeout", 504, SamePayment, "the provider took too long";
    /// The provider may have been paid for work that nobody has: it is not begun again for this payment, and not charged.
    ProviderLost = "provider_lost", 502, NewPayment, "the work was lost with the provider; this payment is not charged for it";
    /// The work failed after the client was charged: a refund is due.
    RefundDue = "refund_due", 502, Never, "the work failed after it was paid for; a refund is due";
    /// The work failed after the client was charged, and the client has its money back.
    Refunded = "refunded", 502, NewPayment, "the work failed after it was paid for, and the payment was given back";
    /// What is at a URL in place of data could not be fetched.
    UrlFailed = "url_failed", 502, SamePayment, "what is at the URL cannot be fetched";
    /// The app could not be reached.
    AppUnreachable = "app_unreachable", 502, SamePayment, "the service behind the gateway cannot be reached";
    /// The app took too long.
    AppTimeout = "app_timeout", 504, SamePayment, "the service behind the gateway took too long";
    /// The app answered a priced request with a failure; not charged.
    AppFailed = "app_failed", 502, SamePayment, "the service behind the gateway failed";
    /// A crash interrupted the job before it was done; not charged.
    Interrupted = "interrupted", 503, SamePayment, "the job was interrupted before it was done";

    // Not now
    /// Nobody offers this at the moment.
    NoProvider = "no_provider", 503, SamePayment, "No providers available";
    /// The facilitator cannot be reached.
    FacilitatorAway = "facilitator_away", 503, SamePayment, "the payment cannot be verified right now";
    /// The job store cannot be reached.
    StoreAway = "store_away", 503, SamePayment, "paid requests cannot be recorded right now";
    /// The wallet cannot pay a provider right now.
    WalletLow = "wallet_low", 503, SamePayment, "paid requests cannot be served right now";
    /// The wallet is frozen: it pays nobody until somebody unfreezes it.
    WalletFrozen = "wallet_frozen", 503, SamePayment, "paid requests cannot be served right now";
    /// The wallet has spent what it may in an hour.
    BudgetSpent = "budget_spent", 503, SamePayment, "paid requests cannot be served right now";
    /// Providers were paid as much as may be out against payments that have not settled.
    ExposureLimit = "exposure_limit", 503, SamePayment, "too many payments are not settled yet";
    /// The provider asks to be paid elsewhere than before, and is not.
    PayeeChanged = "payee_changed", 503, SamePayment, "the provider cannot be used right now";
    /// Shutting down.
    Draining = "draining", 503, SamePayment, "the gateway is shutting down";
    /// Too many paid jobs, or too much body memory in use.
    Overloaded = "overloaded", 503, SamePayment, "too many paid requests at once";

    // Lookups
    /// No such job, or one never paid for.
    JobUnknown = "job_unknown_or_unpaid", 404, Never, "no paid job has this id";
    /// No such file.
    FileUnknown = "file_unknown", 404, Never, "no stored file has this id";
    /// `Range` names nothing that the file or result has.
    RangeNotSatisfiable = "range_not_satisfiable", 416, Never, "there is no such range of bytes";

    // Us
    /// A fault of the gateway itself.
    Internal = "internal", 500, SamePayment, "an internal error";
}

/// An outcome that is answered with an error: a reason, and what is known beyond it.
#[derive(Clone, Debug)]
pub struct Problem {
    /// Which.
    pub reason: Reason,
    /// `error` of the answer, if more precise than [`Reason::text`]. Never internal detail.
    pub message: Option<String>,
    /// `details` of the answer.
    pub details: Option<Value>,
    /// Seconds, for `Retry-After`.
    pub retry_after: Option<u64>,
    /// Set on answers to paid attempts.
    pub charged: Option<Charged>,
    /// The job, where there is one.
    pub job: Option<JobId>,
}

impl Problem {
    /// Just the reason. 503 gets a `Retry-After` of one second; override where more is known.
    pub fn new(reason: Reason) -> Self {
        let retry_after = if reason.status() == 503 { Some(1) } else { None };
        Problem { reason, message: None, details: None, retry_after, charged: None, job: None }
    }

    /// With this `error` text.
    pub fn message(mut self, message: impl Into<String>) -> Self {
        self.message = Some(message.into());
        self
    }

    /// With these `details`.
    pub fn details(mut self, details: Value) -> Self {
        self.details = Some(details);
        self
    }

    /// With this word on the client's money.
    pub fn charged(mut self, charged: Charged) -> Self {
        self.charged = Some(charged);
        self
    }

    /// With this `Retry-After`, in seconds.
    pub fn retry_after(mut self, seconds: u64) -> Self {
        self.retry_after = Some(seconds);
        self
    }

    /// About this job.
    pub fn job(mut self, job: JobId) -> Self {
        self.job = Some(job);
        self
    }

    /// The JSON body: `error`, `code`, then `details`, `charged`, `retry`, `jobId` where they apply.
    pub fn to_json(&self) -> Value {
        let mut body = serde_json::Map::new();
        body.insert("error".into(), self.message.as_deref().unwrap_or(self.reason.text()).into());
        body.insert("code".into(), self.reason.code().into());
        if let Some(details) = &self.details {
            body.insert("details".into(), details.clone());
        }
        if let Some(charged) = self.charged {
            body.insert("charged".into(), serde_json::to_value(charged).unwrap_or_default());
            body.insert("retry".into(), serde_json::to_value(self.reason.retry()).unwrap_or_default());
        }
        if let Some(job) = self.job {
            body.insert("jobId".into(), job.to_string().into());
        }
        Value::Object(body)
    }
}

impl From<Reason> for Problem {
    fn from(reason: Reason) -> Self {
        Problem::new(reason)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn codes_are_unique_and_snake_case() {
        let mut seen = HashSet::new();
        for reason in Reason::ALL {
            assert!(seen.insert(reason.code()), "{} twice", reason.code());
            assert!(reason.code().bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_'));
        }
    }

    #[test]
    fn a_402_never_tells_the_client_to_send_the_same_payment() {
        for reason in Reason::ALL.iter().filter(|reason| reason.status() == 402) {
            assert_eq!(reason.retry(), Retry::NewPayment, "{}", reason.code());
        }
    }

    #[test]
    fn body_has_the_fields_that_apply() {
        let problem = Problem::new(Reason::PaymentReused).charged(Charged::No);
        let body = problem.to_json();
        assert_eq!(body["code"], "payment_reused");
        assert_eq!(body["charged"], "no");
        assert_eq!(body["retry"], "new_payment");
        assert_eq!(Problem::new(Reason::DataRequired).to_json()["error"], "data is required");
        assert!(Problem::new(Reason::DataRequired).to_json().get("charged").is_none());
    }
}
