//! `[edge]`, `[app]`, `[admin]` and `[log]`: the proxy itself.

use crate::config::document::{Document, Section};
use crate::config::parse::{self, Wrong};
use crate::config::resolved::{Admin, App, Edge, Log, Tls};

pub(super) fn edge(document: &Document<'_>, section: &Section<'_>) -> Option<Edge> {
    let listen = section.list("listen", vec!["0.0.0.0:8080"], parse::socket_address);
    let tls = tls(&section.table("tls"));
    let public_url = section.optional("public_url", parse::origin);
    let threads = section.optional("threads", parse::count);
    let max_connections = section.setting("max_connections", 10_000, parse::count);
    let header_timeout = section.setting("header_timeout", "10s", parse::duration);
    let idle_timeout = section.setting("idle_timeout", "75s", parse::duration);
    let body_timeout = section.setting("body_timeout", "60s", parse::duration);
    let max_header_bytes = section.setting("max_header_bytes", "64KiB", parse::memory_size);
    let drain_timeout = section.setting("drain_timeout", "3m", parse::duration);
    let tunnel_drain_timeout = section.setting("tunnel_drain_timeout", "30s", parse::duration);
    let tunnel_idle_timeout = section.setting("tunnel_idle_timeout", "1h", parse::duration);
    let trusted_peers = section.list("trusted_peers", vec![], parse::ip_block);
    let upgrade_socket = section.optional("upgrade_socket", parse::path);
    section.finish();

    let mut listen = listen?;
    if listen.is_empty() {
        section.mistake("listen", "it is empty, so nobody could connect", "add an address and a port");
    }
    if let (Some(port), Some(first)) = (port_override(document), listen.first_mut()) {
        first.set_port(port);
    }
    for (index, address) in listen.iter().enumerate() {
        if address.port() != 0 && listen.iter().take(index).any(|earlier| earlier == address) {
            section.mistake("listen", format!("{address} is listed twice"), "remove one of them");
        }
    }
    Some(Edge {
        listen,
        tls: tls?,
        public_url: public_url?,
        threads: threads?,
        max_connections: max_connections?,
        header_timeout: header_timeout?,
        idle_timeout: idle_timeout?,
        body_timeout: body_timeout?,
        max_header_bytes: max_header_bytes?,
        drain_timeout: drain_timeout?,
        tunnel_drain_timeout: tunnel_drain_timeout?,
        tunnel_idle_timeout: tunnel_idle_timeout?,
        trusted_peers: trusted_peers?,
        upgrade_socket: upgrade_socket?,
    })
}

/// `PORT`: it replaces the port only, so it is not a plain override.
fn port_override(document: &Document<'_>) -> Option<u16> {
    let text = document.environment.get("PORT").filter(|text| !text.is_empty())?;
    document.note_override("PORT", "edge.listen");
    let port = text.parse().ok();
    if port.is_none() {
        let wrong = Wrong::new(format!("{text:?} is not a port"), "set it to a number from 0 to 65535");
        document.mistake(&super::Origin::Environment("PORT"), "edge.listen".to_owned(), wrong);
    }
    port
}

fn tls(section: &Section<'_>) -> Option<Option<Tls>> {
    let certificate = section.optional("certificate", parse::existing_file);
    let key = section.optional("key", parse::existing_file);
    section.finish();
    match (certificate?, key?) {
        (Some(certificate), Some(key)) => Some(Some(Tls { certificate, key })),
        (None, None) if !section.is_present() => Some(None),
        _ => {
            section.mistake(
                "certificate",
                "TLS needs both `certificate` and `key`",
                "name both PEM files, or remove the table to serve plain HTTP",
            );
            None
        }
    }
}

pub(super) fn app(section: &Section<'_>) -> Option<App> {
    let url = section.required("url", parse::origin);
    let connect_timeout = section.setting("connect_timeout", "2s", parse::duration);
    let response_timeout = section.setting("response_timeout", "60s", parse::duration);
    let max_idle = section.setting("max_idle", 128, parse::count);
    section.finish();
    Some(App {
        url: url?,
        connect_timeout: connect_timeout?,
        response_timeout: response_timeout?,
        max_idle: max_idle?,
    })
}

pub(super) fn admin(section: &Section<'_>) -> Option<Admin> {
    let listen = section.setting("listen", "127.0.0.1:9090", parse::socket_address_or_off);
    section.finish();
    Some(Admin { listen: listen? })
}

pub(super) fn log(section: &Section<'_>) -> Option<Log> {
    let filter = section.setting("filter", "info", |node| {
        let text = parse::name(node)?;
        match text.parse::<tracing_subscriber::filter::Targets>() {
            Ok(_) => Ok(text),
            Err(error) => Err(Wrong::new(
                format!("{text:?} is not a log filter: {error}"),
                "write a level, or levels by module: \"info\", \"warn,galaksio=debug\"",
            )),
        }
    });
    let json = section.setting("json", false, parse::boolean);
    let access = section.setting("access", false, parse::boolean);
    section.finish();
    Some(Log { filter: filter?, json: json?, access: access? })
}
