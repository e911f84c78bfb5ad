//! The whole of `proxy.toml`: each table in its file, and here what must hold between them.

mod chains;
mod declared;
mod edge;
mod limits;
mod local;
mod money;
mod paid;
mod providers;
mod routes;

use super::Secrets;
use super::document::{Document, Section};
use super::node::{Node, Origin};
use super::resolved::{Action, BrokeredWork, Config, Providers};

/// Reads every table, even after a mistake in one. `None` if anything was wrong.
pub(super) fn config(document: &Document<'_>, root: &Node, secrets: Secrets) -> Option<Config> {
    let root = document.root(root);
    let edge = edge::edge(document, &root.table("edge"));
    let app = edge::app(&root.table("app"));
    let routes = routes::routes(root.tables("routes"));
    let accepts = money::accepts(root.tables("accepts"));
    let pricing = money::pricing(&root.table("pricing"));
    let facilitator_table = root.table("facilitator");
    let facilitator = providers::facilitator(document, &facilitator_table, secrets);
    let providers_table = root.table("providers");
    let providers = providers::providers(&providers_table);
    let plain_http = providers.as_ref().is_none_or(|providers| providers.allow_plain_http);
    let declared = declared::declared(&root.tables("provider"), plain_http);
    // What is wrong with them is told once, and not also as a route that nobody serves.
    let providers = providers.zip(declared).map(|(providers, declared)| Providers { declared, ..providers });
    let wallet_table = root.table("wallet");
    let wallet = money::wallet(document, &wallet_table, accepts.as_deref().unwrap_or_default(), secrets);
    let chains = chains::chains(root.tables("chains"));
    let limits_table = root.table("limits");
    let limits = limits::limits(&limits_table);
    let store = paid::store(&root.table("store"));
    let paid_table = root.table("paid");
    let paid = paid::paid(&paid_table);
    let admin = edge::admin(&root.table("admin"));
    let log = edge::log(&root.table("log"));
    root.finish();
    document.idle_overrides();

    if let (Some(paid), Some(pricing), Some(edge)) = (&paid, &pricing, &edge) {
        paid::fits(&paid_table, paid, pricing, edge.max_header_bytes);
    }
    if let (Some(facilitator), Some(accepts), Some(chains)) = (&facilitator, &accepts, &chains) {
        local::can_settle(&facilitator_table, facilitator, accepts, chains);
    }
    if let (Some(limits), Some(Some(wallet))) = (&limits, &wallet) {
        limits::fits(&limits_table, limits, wallet);
    }
    if let (Some(limits), Some(routes)) = (&limits, &routes) {
        limits::trusts(limits, routes);
    }
    if let (Some(routes), Some(paid)) = (&routes, &paid) {
        routes::own_endpoints(routes, paid, &paid_table);
    }
    if let (Some(routes), Some(accepts)) = (&routes, &accepts) {
        money::prices_fit(accepts, routes);
        for read in routes {
            can_be_sold(
                &read.route.action,
                &read.section,
                accepts.is_empty(),
                &wallet_table,
                providers.as_ref(),
            );
        }
    }
    if !document.is_clean() {
        return None;
    }
    Some(Config {
        edge: edge?,
        app: app?,
        routes: routes?.into_iter().map(|read| read.route).collect(),
        accepts: accepts?.into_iter().map(|read| read.accept).collect(),
        pricing: pricing?,
        facilitator: facilitator?,
        providers: providers?,
        wallet: wallet?,
        chains: chains?,
        limits: limits?,
        store: store?,
        paid: paid?,
        admin: admin?,
        log: log?,
    })
}

/// A route that takes money needs somebody to be paid; a brokered one somebody to do the work, and a wallet.
fn can_be_sold(
    action: &Action,
    route: &Section<'_>,
    no_accepts: bool,
    wallet: &Section<'_>,
    providers: Option<&Providers>,
) {
    let key = match action {
        Action::Free => return,
        Action::Priced { .. } => "price",
        Action::Brokered { .. } => "work",
    };
    if no_accepts {
        let fix = "add an [[accepts]] table with `network` and `pay_to`";
        route.mistake(key, "nothing says what clients pay with, or whom", fix);
    }
    let Action::Brokered { work, .. } = action else { return };
    if !wallet.is_present() {
        route.mistake(
            key,
            "brokered work is bought by the gateway, and it has no wallet",
            "add a [wallet] table",
        );
    }
    let Some(providers) = providers else { return };
    let (sellers, names) = match work {
        BrokeredWork::Store => {
            (providers.xcache.is_some() || providers.openx402.is_some(), "xcache or openx402")
        }
        BrokeredWork::Run => (providers.merit.is_some(), "merit"),
    };
    if !sellers && !providers.declared.iter().any(|declared| declared.kind.work() == *work) {
        let tables = names.replace(" or ", "], [providers.");
        let fix = format!("add [providers.{tables}] or a [[provider]]");
        route.mistake(key, "no provider that does this work is configured", fix);
    }
}
