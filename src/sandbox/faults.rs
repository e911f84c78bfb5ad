//! Faults that can be switched on for each service while it runs, for all requests or the next few.
//!
//! A fault strikes *before* a request has its effect or *after* it; to a client that got no answer the
//! two look alike, and telling them apart is what a payer must survive.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::Semaphore;

use super::Service;
use crate::money::Amount;

/// What goes wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// It takes this much longer.
    Slow(Duration),
    /// It takes until it is let go: [`Faults::let_go`].
    Held,
    /// It answers this status, with a JSON error.
    Status(u16),
    /// It answers 200 and an HTML page.
    Garbage,
    /// It closes the connection without an answer.
    Drop,
    /// It closes the connection in the middle of the answer's body.
    Truncate,
    /// Facilitator: `/settle` answers `settlement_pending`; the transaction is mined by the first
    /// repetition that is not struck.
    Pending,
    /// Facilitator: `/verify` and `/settle` say yes without looking, and nothing moves.
    Lie,
    /// Provider: takes the payment, then answers with a fresh challenge.
    AskAgain,
    /// Provider: the work itself fails, and it answers 500. Merit Systems sends the money back; the
    /// others do not take it.
    WorkFails,
}

/// Before or after the request had its effect. Only matters to faults of the transport.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum When {
    /// Nothing has happened.
    #[default]
    Before,
    /// It has been done; only the answer suffers.
    After,
}

/// A fault, and which requests it strikes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rule {
    fault: Fault,
    when: When,
    path: Option<String>,
    paid: bool,
    times: Option<u32>,
}

impl Rule {
    /// Strikes every request until cleared.
    pub fn always(fault: Fault) -> Self {
        Rule { fault, when: When::Before, path: None, paid: false, times: None }
    }

    /// Strikes the next `times` requests.
    pub fn next(times: u32, fault: Fault) -> Self {
        Rule { times: Some(times), ..Rule::always(fault) }
    }

    /// Only requests whose path starts so.
    pub fn at(mut self, path: impl Into<String>) -> Self {
        self.path = Some(path.into());
        self
    }

    /// Only requests that carry a payment.
    pub fn paid(mut self) -> Self {
        self.paid = true;
        self
    }

    /// After the request had its effect.
    pub fn after(mut self) -> Self {
        self.when = When::After;
        self
    }
}

/// The switchboard. Of several rules that match a request, the one added first strikes, alone.
#[derive(Debug, Default)]
pub struct Faults(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    rules: Vec<(Service, Rule)>,
    fired: HashMap<Service, u64>,
    price_bps: HashMap<Service, u32>,
    held: HashMap<Service, Arc<Semaphore>>,
}

impl Faults {
    /// Switches a fault on.
    pub fn add(&self, service: Service, rule: Rule) {
        self.0.lock().rules.push((service, rule));
    }

    /// Sets a provider's prices to so many hundredths of a percent of the normal: 20,000 doubles
    /// them. Holds for requests that start from now on.
    pub fn set_price(&self, service: Service, bps: u32) {
        self.0.lock().price_bps.insert(service, bps);
    }

    /// Switches all faults of a service off, and its prices back to normal.
    pub fn clear(&self, service: Service) {
        let mut state = self.0.lock();
        state.rules.retain(|(of, _)| *of != service);
        state.price_bps.remove(&service);
    }

    /// Lets one held request to a service go on: the one that is held, or the next that will be.
    pub fn let_go(&self, service: Service) {
        self.gate(service).add_permits(1);
    }

    /// Waits to be let go.
    pub(super) async fn held(&self, service: Service) {
        if let Ok(permit) = self.gate(service).acquire().await {
            permit.forget();
        }
    }

    fn gate(&self, service: Service) -> Arc<Semaphore> {
        let mut state = self.0.lock();
        Arc::clone(state.held.entry(service).or_insert_with(|| Arc::new(Semaphore::new(0))))
    }

    /// How many requests to a service were struck so far.
    pub fn fired(&self, service: Service) -> u64 {
        self.0.lock().fired.get(&service).copied().unwrap_or(0)
    }

    /// What strikes this request; uses up one of the rule's times.
    pub(super) fn strike(&self, service: Service, path: &str, paid: bool) -> Option<(Fault, When)> {
        let mut state = self.0.lock();
        let index = state.rules.iter().position(|(of, rule)| {
            let matches = rule.path.as_deref().is_none_or(|prefix| path.starts_with(prefix));
            *of == service && matches && (paid || !rule.paid) && rule.times != Some(0)
        })?;
        let rule = &mut state.rules[index].1;
        let struck = (rule.fault, rule.when);
        if let Some(times) = &mut rule.times {
            *times -= 1;
        }
        if rule.times == Some(0) {
            state.rules.remove(index);
        }
        *state.fired.entry(service).or_default() += 1;
        Some(struck)
    }

    /// A price, as it is now.
    pub(super) fn price(&self, service: Service, normal: Amount) -> Amount {
        let bps = self.0.lock().price_bps.get(&service).copied().unwrap_or(10_000);
        let scaled = normal.units().saturating_mul(u128::from(bps)).div_ceil(10_000);
        Amount::new(scaled)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rules_are_used_up_in_order_and_match_by_path() {
        let faults = Faults::default();
        faults.add(Service::Merit, Rule::next(2, Fault::Drop).at("/settle").after());
        faults.add(Service::Merit, Rule::always(Fault::Garbage));
        let strike = |path| faults.strike(Service::Merit, path, false);
        assert_eq!(strike("/verify"), Some((Fault::Garbage, When::Before)));
        assert_eq!(strike("/settle"), Some((Fault::Drop, When::After)));
        assert_eq!(strike("/settle/x"), Some((Fault::Drop, When::After)));
        assert_eq!(strike("/settle"), Some((Fault::Garbage, When::Before)));
        assert_eq!(faults.strike(Service::XCache, "/settle", false), None);
        assert_eq!(faults.fired(Service::Merit), 4);
        faults.clear(Service::Merit);
        assert_eq!(strike("/settle"), None);
    }

    #[test]
    fn a_rule_for_paid_requests_lets_the_others_pass() {
        let faults = Faults::default();
        faults.add(Service::Merit, Rule::next(1, Fault::Drop).paid());
        assert_eq!(faults.strike(Service::Merit, "/", false), None);
        assert_eq!(faults.strike(Service::Merit, "/", true), Some((Fault::Drop, When::Before)));
        assert_eq!(faults.strike(Service::Merit, "/", true), None);
    }

    #[test]
    fn prices_scale_and_round_up() {
        let faults = Faults::default();
        faults.set_price(Service::XCache, 15_000);
        assert_eq!(faults.price(Service::XCache, Amount::new(281)).units(), 422);
        assert_eq!(faults.price(Service::Merit, Amount::new(281)).units(), 281);
        faults.clear(Service::XCache);
        assert_eq!(faults.price(Service::XCache, Amount::new(281)).units(), 281);
    }
}
