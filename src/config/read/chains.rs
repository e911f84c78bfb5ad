//! `[[chains]]`: the JSON-RPC endpoints that are asked what happened.

use crate::config::document::Section;
use crate::config::parse;
use crate::config::resolved::Chain;

pub(super) fn chains(sections: Vec<Section<'_>>) -> Option<Vec<Chain>> {
    let mut chains: Vec<Chain> = Vec::with_capacity(sections.len());
    let mut whole = true;
    for section in sections {
        let Some(chain) = chain(&section) else {
            whole = false;
            continue;
        };
        if chains.iter().any(|earlier| earlier.network == chain.network) {
            section.mistake(
                "network",
                "this network has a table above",
                "put all its endpoints into one `rpc`",
            );
        }
        chains.push(chain);
    }
    whole.then_some(chains)
}

fn chain(section: &Section<'_>) -> Option<Chain> {
    let network = section.required("network", parse::network);
    let rpc = section.required("rpc", parse::rpc_urls);
    let final_blocks = section.optional("final_blocks", parse::count);
    let timeout = section.setting("timeout", "5s", parse::duration);
    let max_head_age = section.setting("max_head_age", "1m", parse::duration);
    let log_range = section.setting("log_range", 2_000, parse::count);
    let poll = section.setting("poll", "200ms", parse::duration);
    let allow_plain_http = section.setting("allow_plain_http", false, parse::boolean);
    section.finish();
    let (rpc, allow_plain_http) = (rpc?, allow_plain_http?);
    if !allow_plain_http && rpc.iter().any(|(url, _)| !parse::is_private(url)) {
        section.mistake(
            "rpc",
            "an endpoint is called without encryption, and could be made to say anything",
            "write https://, or allow_plain_http = true for a network that is yours alone",
        );
    }
    Some(Chain {
        network: network?,
        rpc: rpc.into_iter().map(|(_, url)| url).collect(),
        final_blocks: final_blocks?,
        timeout: timeout?,
        max_head_age: max_head_age?,
        log_range: log_range?,
        poll: poll?,
        allow_plain_http,
    })
}
