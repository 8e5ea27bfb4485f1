//! What the service manager is told about this service (`sd_notify(3)`). Called by `main`, `threads::data` and
//! `threads::health`.

use sd_notify::NotifyState;

use crate::quiet::Quiet;
use crate::sys::clock;

/// The service manager that started this process and wants to be told.
#[derive(Debug)]
pub struct Notify {
    complaints: Quiet,
}

impl Notify {
    /// `None` where nobody wants to be told: `$NOTIFY_SOCKET` is not set.
    pub fn from_env() -> Option<Notify> {
        let address = std::env::var_os("NOTIFY_SOCKET")?;
        (!address.is_empty()).then(|| Notify { complaints: Quiet::default() })
    }

    /// Sends one message. What cannot be sent is logged and lost: the next one says it again.
    pub fn tell(&mut self, message: &[NotifyState<'_>]) {
        if let Err(error) = sd_notify::notify(message)
            && let Some(others) = self.complaints.pass(clock::mono_us() / 1000)
        {
            log::warn!(
                "the service manager cannot be told {message:?}: {error}; is NOTIFY_SOCKET right? ({others} more like this)"
            );
        }
    }
}
