//! Random trials of the pipeline, the same ones each time: see `support/trial`. The fuzzer's short run goes further.

use rookeeper::ops::{ReadOp, encode};
#[path = "support/trial/mod.rs"]
mod trial;

use rookeeper::ops::{ConnectRequest, Op, decode, decode_connect};
use trial::{Ask, Choices};

/// Bytes of choices in one trial: some hundred requests.
const CHOICES: usize = 6000;

fn for_seeds(seeds: std::ops::Range<u64>, choices: usize, run: impl Fn(&[u8]) + std::panic::RefUnwindSafe) {
    for seed in seeds {
        let outcome = std::panic::catch_unwind(|| run(&trial::bytes_of_seed(seed, choices)));
        if let Err(panic) = outcome {
            eprintln!("the trial of seed {seed} failed");
            std::panic::resume_unwind(panic);
        }
    }
}

#[test]
fn whatever_clients_do_the_pipeline_agrees_with_a_naive_model() {
    for_seeds(0..600, CHOICES, trial::run);
}

#[test]
fn so_it_does_from_other_seeds() {
    for_seeds(1000..1600, CHOICES, trial::run);
}

#[test]
fn a_short_life_leaves_no_loose_ends() {
    for_seeds(2000..6000, 200, trial::run);
}

#[test]
fn every_request_survives_its_bytes_and_is_answered_once() {
    for_seeds(0..1000, 300, |bytes| {
        let existing = ["/a".to_owned(), "/a/b".to_owned()];
        let request = trial::request(&mut Choices::new(bytes), 9, &existing);
        if !request.op.is_malformed() && request.op != Op::Read(ReadOp::Unknown) {
            assert_eq!(decode(&encode::request(&request)).as_ref(), Ok(&request));
        }
        Ask::fresh().ask(request);
    });
}

#[test]
fn every_connect_request_survives_its_bytes_and_is_taken_or_refused() {
    for_seeds(0..1000, 60, |bytes| {
        let mut choices = Choices::new(bytes);
        let connect = ConnectRequest {
            last_zxid_seen: i64::from(choices.byte()) - 128,
            timeout_ms: i32::from(choices.short()) - 1000,
            session_id: [0, 1, -1, i64::MIN][choices.below(4)],
            password: choices.some_bytes(20).to_vec(),
            read_only: [None, Some(false), Some(true)][choices.below(3)],
        };
        assert_eq!(decode_connect(&encode::connect(&connect)).as_ref(), Ok(&connect));
        Ask::fresh().connect(connect);
    });
}
