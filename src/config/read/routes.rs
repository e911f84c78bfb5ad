//! `[[routes]]`: what is free, priced or brokered, and that no rule hides another.

use http::Method;

use crate::config::document::Section;
use crate::config::parse::{self, Wrong};
use crate::config::resolved::{Action, BrokeredWork, Paid, Route, Settle};

/// One rule with the table it was read from.
pub(super) struct ReadRoute<'a> {
    pub(super) route: Route,
    pub(super) section: Section<'a>,
}

pub(super) fn routes<'a>(sections: Vec<Section<'a>>) -> Option<Vec<ReadRoute<'a>>> {
    let mut routes = Vec::with_capacity(sections.len());
    let mut whole = true;
    for section in sections {
        match route(&section) {
            Some(route) => routes.push(ReadRoute { route, section }),
            None => whole = false,
        }
    }
    hidden(&routes);
    whole.then_some(routes)
}

fn route(section: &Section<'_>) -> Option<Route> {
    let path = section.required("path", parse::route_path);
    let methods = section.list("methods", vec![], parse::method);
    let work = section.optional("work", work);
    let price = section.optional("price", parse::price);
    let settle = section.optional("settle", parse::settle);
    let description = section.setting("description", "", parse::text);
    let mime_type = section.setting("mime_type", "application/json", parse::name);
    section.finish();

    let (methods, work, price) = (methods?, work?, price?);
    let settle = settle?;
    let unused = |keys: &[&str], kind: &str| {
        for key in keys.iter().filter(|key| section.has(key)) {
            let reason = format!("`{key}` means nothing on a {kind} route");
            section.mistake(key, reason, "remove it");
        }
    };
    let settle = settle.unwrap_or(Settle::Success);
    let action = match (work, price) {
        (Some(_), Some(_)) => {
            let reason = "a route has `work` (a provider does it) or `price` (the app does it), not both";
            section.mistake("price", reason, "remove one of them; brokered work is priced by [pricing]");
            return None;
        }
        (Some(work), None) => {
            unused(&["description", "mime_type"], "brokered");
            if !methods.is_empty() && methods != [Method::POST] {
                section.mistake("methods", "brokered work is ordered by POST", "write methods = [\"POST\"]");
            }
            if settle == Settle::After {
                let reason = "brokered work costs the wallet money, and an answer given before it is paid for may never be: each \
                              would be bought for whoever empties his wallet in time";
                section.mistake("settle", reason, "write \"success\" or \"upfront\"");
            }
            Action::Brokered { work, settle: settle.flow() }
        }
        (None, Some(price)) => {
            if methods.contains(&Method::OPTIONS) {
                let fix = "remove \"OPTIONS\"; browsers ask it before they can pay";
                section.mistake("methods", "OPTIONS is always free", fix);
            }
            Action::Priced { price, settle, description: description?, mime_type: mime_type? }
        }
        (None, None) => {
            unused(&["settle", "description", "mime_type"], "free");
            Action::Free
        }
    };
    let methods = if matches!(action, Action::Brokered { .. }) { vec![Method::POST] } else { methods };
    let path = path?;
    if !matches!(action, Action::Free) && path.contains(['%', ';']) {
        let reason = "apps differ in how they read % and ; in a path, so a way around the price could not be ruled out";
        section.mistake(
            "path",
            reason,
            "sell a path without them, such as the one above it with /* at its end",
        );
    }
    Some(Route { path, methods, action })
}

fn work(node: &crate::config::node::Node) -> parse::Parsed<BrokeredWork> {
    match parse::text(node)?.as_str() {
        "store" => Ok(BrokeredWork::Store),
        "run" => Ok(BrokeredWork::Run),
        other => Err(Wrong::new(
            format!("{other:?} is not work that can be brokered"),
            "write \"store\" or \"run\"; for work of the app itself set a price instead",
        )),
    }
}

/// The first match wins, so a rule whose every request an earlier one takes is a mistake.
fn hidden(routes: &[ReadRoute<'_>]) {
    for (index, later) in routes.iter().enumerate() {
        let taker = routes.iter().take(index).find(|earlier| {
            covers(&earlier.route.path, &later.route.path) && takes_methods(&earlier.route, &later.route)
        });
        let Some(earlier) = taker else { continue };
        let (reason, fix) = if earlier.route.path == later.route.path {
            (
                format!("{} is already routed above, for these methods", later.route.path),
                "remove one of the two",
            )
        } else {
            let reason = format!("it is never reached: {} above takes its requests", earlier.route.path);
            (reason, "move this route above that one")
        };
        later.section.mistake("path", reason, fix);
    }
}

fn takes_methods(earlier: &Route, later: &Route) -> bool {
    let sold = !matches!(earlier.action, Action::Free);
    // HEAD is GET without the content (RFC 9110 9.3.2), so it is sold where GET is.
    let takes = |method: &Method| {
        earlier.methods.contains(method)
            || (sold && *method == Method::HEAD && earlier.methods.contains(&Method::GET))
    };
    earlier.methods.is_empty() || (!later.methods.is_empty() && later.methods.iter().all(takes))
}

/// Whether every path that `narrow` matches is matched by `wide`: `/a/*` is `/a` and all below it.
fn covers(wide: &str, narrow: &str) -> bool {
    match wide.strip_suffix("/*") {
        Some(base) => narrow.strip_prefix(base).is_some_and(|rest| rest.is_empty() || rest.starts_with('/')),
        None => wide == narrow,
    }
}

/// The gateway's own endpoints come first, so a route below one would be partly dead.
pub(super) fn own_endpoints(routes: &[ReadRoute<'_>], paid: &Paid, section: &Section<'_>) {
    let own = [
        ("status_path", paid.status_path.as_deref()),
        ("job_path", paid.job_path.as_deref()),
        ("files_path", paid.files_path.as_deref()),
        ("jobs_path", paid.jobs_path.as_deref()),
    ];
    for (index, (key, segment)) in own.iter().enumerate() {
        let Some(segment) = segment else { continue };
        if own.iter().take(index).any(|(_, earlier)| *earlier == Some(segment)) {
            section.mistake(
                key,
                format!("/{segment} is already another endpoint's"),
                "choose another segment",
            );
        }
        for read in routes.iter().filter(|read| read.route.path.starts_with(&format!("/{segment}/"))) {
            let reason = format!("the gateway itself answers /{segment}/{{id}}");
            let fix = format!("set paid.{key} to another path, or to \"\" to switch that endpoint off");
            read.section.mistake("path", reason, fix);
        }
    }
}
