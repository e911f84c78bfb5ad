//! A sold route, as answers need it.

use crate::config::resolved::{Action, BrokeredWork, Paid, Route, Settle};
use crate::quote_cache::{Charging, RouteId};

/// A sold route.
pub(super) struct Rule {
    pub(super) id: RouteId,
    pub(super) work: Option<BrokeredWork>,
    pub(super) charging: Charging,
    /// The answer may be given before the payment is settled.
    pub(super) after: bool,
    pub(super) description: String,
    pub(super) mime_type: String,
}

impl Rule {
    /// The rule with this index; `None` if it is free.
    pub(super) fn new(at: usize, route: &Route, paid: &Paid) -> Option<Rule> {
        let id = RouteId(at);
        match &route.action {
            Action::Free => None,
            Action::Priced { settle, description, mime_type, .. } => Some(Rule {
                id,
                work: None,
                charging: settle.flow().into(),
                after: *settle == Settle::After,
                description: description.clone(),
                mime_type: mime_type.clone(),
            }),
            Action::Brokered { work, settle } => Some(Rule {
                id,
                work: Some(*work),
                charging: Charging::brokered(*settle, paid.upfront_above),
                after: false,
                description: match work {
                    BrokeredWork::Store => "Store data".to_owned(),
                    BrokeredWork::Run => "Run code".to_owned(),
                },
                mime_type: "application/json".to_owned(),
            }),
        }
    }
}
