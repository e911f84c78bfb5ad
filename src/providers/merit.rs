//! Merit Systems: runs a Python program in a sandbox.
//!
//! One endpoint, `POST {"snippet": code}`, paid in full before the program starts. An exception of the program is inside a
//! 200 and is work done; a 4xx or 5xx is not. Its challenge names a `resource` that does not exist (a path prefix is
//! lost), so the URL called is always the configured one.

#[cfg(test)]
mod tests;

use async_trait::async_trait;
use http::Method;
use serde_json::{Map, Value, json};

use super::exchange::{Line, object, whole};
use super::{Done, Fault, NotSold, Offer, Operation, Order, Provider, ProviderError, Purse};
use crate::config::resolved;
use crate::intake::{Ask, Wanted};
use crate::outgoing::Call;

const NAME: &str = "merit-systems";
const EXECUTE: Operation = "execute";

/// Output of a program, and what the sandbox drew for it, at most.
const MAX_ANSWER: usize = 8 << 20;

/// The adapter. Its operation is `execute`, its payment step too.
///
/// Results: `stdout`, `stderr` (with the traceback of an uncaught exception), `exitCode` (1 after an uncaught
/// exception, else 0), `executionTime` (seconds), `text` (the value of the last expression, if it has one), `provider`.
#[derive(Clone, Debug)]
pub struct Merit {
    line: Line,
    config: resolved::Merit,
}

impl Merit {
    pub(super) fn new(line: Line, config: resolved::Merit) -> Self {
        Merit { line, config }
    }

    fn execute(&self, code: &str) -> Call {
        let body = json!({ "snippet": code }).to_string();
        Call::json(Method::POST, self.config.url.clone(), body).max_answer(MAX_ANSWER)
    }

    /// A request that costs them nothing to refuse: the challenge comes before the body is looked at.
    fn probe(&self) -> Call {
        self.execute("0")
    }
}

#[async_trait]
impl Provider for Merit {
    fn name(&self) -> &'static str {
        NAME
    }

    fn sells(&self, ask: &Ask) -> Result<Operation, NotSold> {
        match &ask.wanted {
            Wanted::Store { .. } => Err(NotSold::Operation { provider: NAME }),
            Wanted::Run { language } if language != "python" => {
                Err(NotSold::Option { provider: NAME, option: format!("language {language:?}") })
            }
            Wanted::Run { .. } if ask.size > self.config.max_code => {
                Err(NotSold::Size { provider: NAME, limit: self.config.max_code })
            }
            Wanted::Run { .. } => Ok(EXECUTE),
        }
    }

    async fn offer(&self, _: Operation, _: &Ask) -> Result<Offer, ProviderError> {
        self.line.offer(self.probe()).await
    }

    async fn perform(&self, order: &Order, purse: &dyn Purse) -> Result<Done, ProviderError> {
        let code = whole(&order.content.data).await?;
        let code = std::str::from_utf8(&code)
            .map_err(|_| ProviderError::new(Fault::Refused, "the code is not UTF-8 text"))?;
        let exchange = self.line.open(order.deadline);
        let challenge = exchange.challenge(self.probe()).await?;
        let answer = exchange.paid(purse, EXECUTE, &challenge, self.execute(code)).await?;
        Ok(Done { result: result(&object(&answer)?)?, ..Done::default() })
    }
}

/// Their answer in our words. Without `logs` nothing was run, whatever the status says.
fn result(answer: &Map<String, Value>) -> Result<Map<String, Value>, ProviderError> {
    let broken = |what| ProviderError::new(Fault::Broken, what);
    let logs =
        answer.get("logs").and_then(Value::as_object).ok_or_else(|| broken("the answer has no logs"))?;
    let error = answer.get("error").filter(|error| !error.is_null());
    let mut stderr = joined(logs.get("stderr"));
    if let Some(error) = error {
        if !stderr.is_empty() && !stderr.ends_with('\n') {
            stderr.push('\n');
        }
        stderr += &trace(error);
    }

    let mut result = Map::new();
    result.insert("stdout".into(), joined(logs.get("stdout")).into());
    result.insert("stderr".into(), stderr.into());
    result.insert("exitCode".into(), u8::from(error.is_some()).into());
    if let Some(duration) = answer.get("duration").filter(|duration| duration.is_number()) {
        result.insert("executionTime".into(), duration.clone());
    }
    if let Some(text) = main_text(answer) {
        result.insert("text".into(), text.into());
    }
    result.insert("provider".into(), NAME.into());
    Ok(result)
}

/// Chunks of output keep their own line ends.
fn joined(chunks: Option<&Value>) -> String {
    chunks.and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str).collect()
}

fn trace(error: &Value) -> String {
    let text = |field| error.get(field).and_then(Value::as_str).unwrap_or_default();
    match error.get("traceback") {
        Some(Value::String(trace)) if !trace.is_empty() => trace.clone(),
        Some(lines @ Value::Array(_)) => joined(Some(lines)),
        _ => format!("{}: {}", text("name"), text("value")),
    }
}

fn main_text(answer: &Map<String, Value>) -> Option<&str> {
    let results = answer.get("results")?.as_array()?;
    let main = results.iter().find(|result| result.get("isMainResult") == Some(&Value::Bool(true)))?;
    main.get("text")?.as_str()
}
