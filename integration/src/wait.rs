//! The one way to wait: ask again until the answer is the wanted one, and say what it was if it never is.

use std::{fmt::Debug, time::Duration};

use tokio::time::Instant;

/// How long anything may take. Far longer than it should: tests never assert seconds.
pub const PATIENCE: Duration = Duration::from_secs(90);

/// Asks until `wanted`, and returns that answer.
///
/// # Panics
/// When it does not come, with what was being waited for and the last answer.
pub async fn until<T: Debug, F: AsyncFnMut() -> T>(
    what: &str,
    mut ask: F,
    wanted: impl Fn(&T) -> bool,
) -> T {
    let began = Instant::now();
    loop {
        let answer = ask().await;
        if wanted(&answer) {
            return answer;
        }
        assert!(
            began.elapsed() < PATIENCE,
            "waited in vain for {what}; last answer: {answer:#?}"
        );
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}
