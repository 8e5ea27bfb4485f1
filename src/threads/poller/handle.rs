//! Posting to the poller and waking it, in one call; and the poller's side of that: going to sleep without missing mail.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering, fence};

use crossbeam_channel::{Receiver, Sender, unbounded};
use mio::Waker;

use crate::mail::ToPoller;

#[derive(Debug)]
struct Bell {
    waker: Waker,
    /// The poller sleeps, or is about to: a post must wake it.
    asleep: AtomicBool,
}

/// How everybody else talks to the poller. Cheap to clone.
#[derive(Clone, Debug)]
pub struct PollerHandle {
    sender: Sender<ToPoller>,
    bell: Arc<Bell>,
}

impl PollerHandle {
    /// Posts, and wakes the poller should it sleep: a system call only then. After the end of the poller, mail is lost.
    pub fn post(&self, mail: ToPoller) {
        // The poller ends when it was told to, or with the process; there is nobody to tell either way.
        let _ = self.sender.send(mail);
        // 1. post   2. is it asleep?   against the poller's   1. I sleep   2. is there mail?
        // The fences order each pair, so at least one side sees the other.
        fence(Ordering::SeqCst);
        if self.bell.asleep.load(Ordering::Relaxed) && self.bell.asleep.swap(false, Ordering::Relaxed) {
            self.bell.waker.wake().expect("an eventfd that is open can be written");
        }
    }
}

/// The poller's end.
#[derive(Debug)]
pub struct Inbox {
    receiver: Receiver<ToPoller>,
    bell: Arc<Bell>,
}

impl Inbox {
    /// The next mail, if there is some.
    pub fn next(&self) -> Option<ToPoller> {
        self.receiver.try_recv().ok()
    }

    /// Nothing is there.
    pub fn is_empty(&self) -> bool {
        self.receiver.is_empty()
    }

    /// Announces sleep. False: there is mail, stay awake. Each call is followed by [`Inbox::wake_up`].
    pub fn may_sleep(&self) -> bool {
        self.bell.asleep.store(true, Ordering::Relaxed);
        fence(Ordering::SeqCst);
        self.receiver.is_empty()
    }

    /// The poller looks into its inbox anyway: nobody needs to wake it.
    pub fn wake_up(&self) {
        self.bell.asleep.store(false, Ordering::Relaxed);
    }
}

/// Both ends of the poller's mail.
pub fn mailbox(waker: Waker) -> (PollerHandle, Inbox) {
    let (sender, receiver) = unbounded();
    let bell = Arc::new(Bell { waker, asleep: AtomicBool::new(false) });
    (PollerHandle { sender, bell: Arc::clone(&bell) }, Inbox { receiver, bell })
}
