//! Posting to a thread that sleeps in a poll of its own, and waking it, in one call; and that thread's side: going to
//! sleep without missing mail. Used by the poller and the quorum thread.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering, fence};

use crossbeam_channel::{Receiver, Sender, unbounded};
use mio::Waker;

#[derive(Debug)]
struct WakeUp {
    waker: Waker,
    /// The thread sleeps, or is about to: a post must wake it.
    asleep: AtomicBool,
}

/// How everybody else talks to the thread. Cheap to clone.
#[derive(Debug)]
pub struct Handle<T> {
    sender: Sender<T>,
    wake_up: Arc<WakeUp>,
}

impl<T> Clone for Handle<T> {
    fn clone(&self) -> Handle<T> {
        Handle { sender: self.sender.clone(), wake_up: Arc::clone(&self.wake_up) }
    }
}

impl<T> Handle<T> {
    /// Posts, and wakes the thread should it sleep: a system call only then. After the end of the thread, mail is lost.
    pub fn post(&self, mail: T) {
        // The thread ends when it was told to, or with the process; there is nobody to tell either way.
        let _ = self.sender.send(mail);
        // 1. post   2. is it asleep?   against the thread's   1. I sleep   2. is there mail?
        // The fences order each pair, so at least one side sees the other.
        fence(Ordering::SeqCst);
        if self.wake_up.asleep.load(Ordering::Relaxed) && self.wake_up.asleep.swap(false, Ordering::Relaxed) {
            self.wake_up.waker.wake().expect("an eventfd that is open can be written");
        }
    }
}

/// The thread's end.
#[derive(Debug)]
pub struct Inbox<T> {
    receiver: Receiver<T>,
    wake_up: Arc<WakeUp>,
}

impl<T> Inbox<T> {
    /// The next mail, if there is some.
    pub fn next(&self) -> Option<T> {
        self.receiver.try_recv().ok()
    }

    /// Nothing is there.
    pub fn is_empty(&self) -> bool {
        self.receiver.is_empty()
    }

    /// Announces sleep. False: there is mail, stay awake. Each call is followed by [`Inbox::wake_up`].
    pub fn may_sleep(&self) -> bool {
        self.wake_up.asleep.store(true, Ordering::Relaxed);
        fence(Ordering::SeqCst);
        self.receiver.is_empty()
    }

    /// The thread looks into its inbox anyway: nobody needs to wake it.
    pub fn wake_up(&self) {
        self.wake_up.asleep.store(false, Ordering::Relaxed);
    }
}

/// Both ends of a thread's mail.
pub fn mailbox<T>(waker: Waker) -> (Handle<T>, Inbox<T>) {
    let (sender, receiver) = unbounded();
    let wake_up = Arc::new(WakeUp { waker, asleep: AtomicBool::new(false) });
    (Handle { sender, wake_up: Arc::clone(&wake_up) }, Inbox { receiver, wake_up })
}
