//! A trial of the pipeline: bytes become clients, requests, commits, lost connections, time and restarts, and a naive
//! second implementation checks everything that comes out. Run by `tests/pipeline_random.rs` with bytes that follow
//! from seeds, and by the fuzz target `pipeline` with bytes that a fuzzer varies. Touches no socket, file or clock.
//!
//! What holds:
//! - every request is answered once, also when its client is gone; a client that stays gets replies in the order of its
//!   requests (auth at once), and each is what the naive model says at the zxid of the reply;
//! - events of watches are those of the naive watches, in order, before any reply of the same or a later zxid;
//! - state and model are equal, digests and all figures included; so is a second state that replays the log;
//! - nothing is pending when nothing is in flight;
//! - a snapshot taken meanwhile holds, and loads into, the state at its beginning.

mod answers;
mod ask;
mod choices;
mod frames;
mod model;
mod outbox;
mod requests;
mod snapshots;
mod watchers;
mod world;

pub use ask::Ask;
pub use choices::{Choices, bytes_of_seed};
pub use requests::request;
pub use world::run;
