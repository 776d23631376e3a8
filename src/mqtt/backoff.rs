//! When to connect again: a state machine without I/O.
//!
//! The delay doubles with every connection that fails. It starts anew only after a connection has proved itself, because
//! a broker can accept every connection and close it right after.

use std::time::Duration;

use tokio::time::Instant;

const MIN_DELAY: Duration = Duration::from_millis(250);
const MAX_DELAY: Duration = Duration::from_secs(30);
/// The smallest delay after a takeover: each new connection disconnects the other client.
const MIN_TAKEOVER_DELAY: Duration = Duration::from_secs(5);
/// A connection must live this long to prove itself.
const PROBATION: Duration = Duration::from_secs(5);

/// The delay before the next connection, and what the current one has achieved.
#[derive(Debug)]
pub(super) struct Backoff {
    delay: Duration,
    /// `None` while disconnected.
    connection: Option<Probation>,
}

#[derive(Debug)]
struct Probation {
    start: Instant,
    is_subscribed: bool,
    is_acknowledged: bool,
}

impl Backoff {
    pub(super) fn new() -> Self {
        Self { delay: MIN_DELAY, connection: None }
    }

    /// The broker accepted a connection.
    pub(super) fn on_connected(&mut self, now: Instant) {
        self.connection = Some(Probation { start: now, is_subscribed: false, is_acknowledged: false });
    }

    /// The broker answered the daemon's subscriptions.
    pub(super) fn on_subscribed(&mut self) {
        if let Some(connection) = &mut self.connection {
            connection.is_subscribed = true;
        }
    }

    /// The broker has accepted a message.
    pub(super) fn on_acknowledged(&mut self) {
        if let Some(connection) = &mut self.connection {
            connection.is_acknowledged = true;
        }
    }

    /// The connection ended, or could not be made. Returns the delay before the next one, without jitter. A connection
    /// that another client took over never counts as proved, or the two clients would take over from each other quickly.
    pub(super) fn on_closed(&mut self, now: Instant, is_taken_over: bool) -> Duration {
        let is_proved = self.connection.take().is_some_and(|connection| {
            connection.is_subscribed && connection.is_acknowledged && now - connection.start >= PROBATION
        });
        if is_proved && !is_taken_over {
            self.delay = MIN_DELAY;
        }
        let delay = if is_taken_over { self.delay.max(MIN_TAKEOVER_DELAY) } else { self.delay };
        self.delay = (delay * 2).min(MAX_DELAY);
        delay
    }
}

/// Multiplies a delay by a factor between 0.5 and 1.5, given a random number between 0 and 1, so that many clients do
/// not reconnect at the same time.
pub(super) fn with_jitter(delay: Duration, random: f64) -> Duration {
    delay.mul_f64(0.5 + random)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// One attempt to connect.
    #[derive(Debug, Clone, Copy)]
    struct Attempt {
        is_connected: bool,
        is_subscribed: bool,
        is_acknowledged: bool,
        lifetime: Duration,
        is_taken_over: bool,
    }

    impl Attempt {
        fn proves_itself(self) -> bool {
            let Self { is_connected, is_subscribed, is_acknowledged, lifetime, is_taken_over } = self;
            is_connected && is_subscribed && is_acknowledged && lifetime >= PROBATION && !is_taken_over
        }

        /// Returns the delay after this attempt, and advances the clock to its end.
        fn run(self, backoff: &mut Backoff, now: &mut Instant) -> Duration {
            if self.is_connected {
                backoff.on_connected(*now);
            }
            if self.is_subscribed {
                backoff.on_subscribed();
            }
            if self.is_acknowledged {
                backoff.on_acknowledged();
            }
            *now += self.lifetime;
            backoff.on_closed(*now, self.is_taken_over)
        }
    }

    prop_compose! {
        fn attempt()(
            is_connected in prop::bool::weighted(0.8),
            is_subscribed in prop::bool::weighted(0.8),
            is_acknowledged in prop::bool::weighted(0.8),
            lifetime_ms in 0_u64..10_000,
            is_taken_over in prop::bool::weighted(0.2),
        ) -> Attempt {
            let lifetime = Duration::from_millis(lifetime_ms);
            Attempt { is_connected, is_subscribed, is_acknowledged, lifetime, is_taken_over }
        }
    }

    proptest! {
        /// After a connection that proved itself the delay is the smallest one. After any other it is twice the last one.
        /// After a takeover it is at least five seconds.
        #[test]
        fn the_delay_doubles_until_a_connection_proves_itself(attempts in prop::collection::vec(attempt(), 1..60)) {
            let (mut backoff, mut now) = (Backoff::new(), Instant::now());
            let mut expected = MIN_DELAY;
            for attempt in attempts {
                if attempt.proves_itself() {
                    expected = MIN_DELAY;
                }
                if attempt.is_taken_over {
                    expected = expected.max(MIN_TAKEOVER_DELAY);
                }
                let delay = attempt.run(&mut backoff, &mut now);
                prop_assert_eq!(delay, expected);
                expected = (expected * 2).min(MAX_DELAY);
                now += delay;
            }
        }

        /// Connections that never prove themselves are rare, whatever they do and with any jitter.
        #[test]
        fn unproved_connections_are_at_most_thirteen_in_two_minutes(
            attempts in prop::collection::vec((attempt(), 0.0..1.0_f64), 60),
        ) {
            let (mut backoff, start) = (Backoff::new(), Instant::now());
            let mut now = start;
            let mut count = 0;
            for (attempt, random) in attempts.into_iter().filter(|(attempt, _)| !attempt.proves_itself()) {
                let delay = attempt.run(&mut backoff, &mut now);
                now += with_jitter(delay, random);
                count += usize::from(now - start <= Duration::from_secs(120));
            }
            prop_assert!(count <= 13, "{} connections", count);
        }

        #[test]
        fn jitter_keeps_half_to_one_and_a_half_of_the_delay(delay_ms in 250_u64..30_000, random in 0.0..1.0_f64) {
            let delay = Duration::from_millis(delay_ms);
            let jittered = with_jitter(delay, random);
            prop_assert!(delay / 2 <= jittered && jittered <= delay * 3 / 2);
        }
    }

    #[test]
    fn a_connection_that_only_gets_a_connack_does_not_reset_the_delay() {
        let mut backoff = Backoff::new();
        let now = Instant::now();
        let delays: Vec<_> = (0..9)
            .map(|_| {
                backoff.on_connected(now);
                backoff.on_closed(now + Duration::from_secs(60), false).as_millis()
            })
            .collect();
        assert_eq!(delays, [250, 500, 1000, 2000, 4000, 8000, 16_000, 30_000, 30_000]);
    }
}
