//! Webhooks, if the operator lets clients have them.

use std::sync::Arc;

use tokio::runtime::Runtime;

use crate::broker::{Broker, WebhookRoom, Webhooks};
use crate::config::resolved::Paid;
use crate::proxy::Hooks;

/// Has those told who want to hear that their jobs are done, from now on.
pub(super) fn tell(
    paid: &Paid,
    broker: &Arc<Broker>,
    runtime: &Runtime,
) -> Result<Option<Hooks>, rustls::Error> {
    if !paid.webhooks {
        return Ok(None);
    }
    let room = WebhookRoom::default();
    let hooks = Hooks::new(paid, room.clone())?;
    runtime.spawn(Webhooks::new(Arc::clone(broker), hooks.fetch(), room).run());
    Ok(Some(hooks))
}
