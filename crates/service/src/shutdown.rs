//! SIGTERM and SIGINT ask a process to stop; a cancelled token carries that to everything in it.

use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

/// A token cancelled by the first SIGTERM or SIGINT. A second one ends the process at once with code
/// 130: whoever asks twice does not want to wait for the drain.
///
/// # Errors
/// When the handlers cannot be installed.
pub fn on_signal() -> std::io::Result<CancellationToken> {
    let token = CancellationToken::new();
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let cancelled = token.clone();
    tokio::spawn(async move {
        for asked in 1.. {
            let name = tokio::select! {
                _ = terminate.recv() => "SIGTERM",
                _ = interrupt.recv() => "SIGINT",
            };
            if asked > 1 {
                tracing::warn!("{name} again: stopping now");
                std::process::exit(130);
            }
            tracing::info!("{name}: draining");
            cancelled.cancel();
        }
    });
    Ok(token)
}
